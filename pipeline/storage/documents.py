"""Small JSON documents with a checksum: their key `checksum` is a SHA-256 over all other keys and values.

Documents such as `checkpoint.json` hold the SHA-256 of other files. Their own checksum detects a flipped bit in the
document itself, which may give another step, recipe or hash and still be valid JSON.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.limits import FileTooLarge
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.schemas.errors import InputError

CHECKSUM = "checksum"
MAX_DOCUMENT_BYTES = 64 << 20
"""A longer document is refused before it is read; that of the largest known run has some kilobytes."""


class DamagedDocument(InputError):
    """A document that is no JSON object, or does not match its checksum; the text names it."""


def document_bytes(values: Mapping[str, Any]) -> bytes:
    """A document as it is written: indented, keys sorted, with its checksum.

    Raises:
        TypeError: a value that JSON does not have.
    """
    checksum = _checksum(values)
    return orjson.dumps({**values, CHECKSUM: checksum}, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)


def publish_document(url: str, values: Mapping[str, Any]) -> None:
    """Write a document, whole or not at all; raises what `publish_bytes` raises."""
    publish_bytes(url, document_bytes(values))


def read_document(url: str, max_bytes: int = MAX_DOCUMENT_BYTES) -> dict[str, Any]:
    """The values of a document, without its checksum. Documents of older versions have none and are accepted without.

    Raises:
        DamagedDocument: too large, not a JSON object, or its checksum differs.
        FileNotFoundError: there is none.
        OSError: could not be read.
    """
    shown = redact(url)
    try:
        data = read_bytes(url, max_bytes=max_bytes)
    except FileTooLarge as error:
        raise DamagedDocument(f"{error}: it is none of ours") from None
    except IsADirectoryError:
        raise DamagedDocument(f"{shown} is a folder, not a JSON document") from None
    try:
        values = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise DamagedDocument(f"{shown} cannot be read: it is damaged, or no JSON at all ({error})") from None
    if not isinstance(values, dict):
        raise DamagedDocument(f"{shown} cannot be read: it is damaged, or no JSON object at all")
    recorded = values.pop(CHECKSUM, None)
    if recorded is None:
        return values
    try:
        found = _checksum(values)
    except (TypeError, ValueError):  # nested deeper than anything that was written
        found = ""
    if recorded != found:
        raise DamagedDocument(f"{shown} is damaged: what it says is not what was written (its checksum differs)")
    return values


def _checksum(values: Mapping[str, Any]) -> str:
    # Over the content, not the bytes, so that a document that was only reformatted still matches.
    return hashlib.sha256(orjson.dumps(values, option=orjson.OPT_SORT_KEYS)).hexdigest()
