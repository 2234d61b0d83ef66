"""What tells that an object was overwritten, by the names that file systems have for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TAGS = ("ETag", "etag", "md5Hash", "blob_id")
_VERSIONS = (*_TAGS, "LastModified", "last_modified", "Last-Modified", "mtime", "created")
"""The surest first."""


def version_of(info: Mapping[str, Any]) -> str:
    """Of what `info` of a file system says; "" where it says nothing of the kind."""
    return next((str(info[key]) for key in _VERSIONS if info.get(key)), "")


def entity_tag(info: Mapping[str, Any]) -> str:
    """What differs whenever the contents do; "" where nothing is that sure. Times are not: stores round them."""
    return next((str(info[key]) for key in _TAGS if info.get(key)), "")
