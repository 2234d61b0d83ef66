"""What tells that an object was overwritten, by the names that file systems have for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_VERSIONS = (
    "ETag", "etag", "md5Hash", "blob_id", "LastModified", "last_modified", "Last-Modified", "mtime", "created"
)  # fmt: skip
"""The surest first."""


def version_of(info: Mapping[str, Any]) -> str:
    """Of what `info` of a file system says; "" where it says nothing of the kind."""
    return next((str(info[key]) for key in _VERSIONS if info.get(key)), "")
