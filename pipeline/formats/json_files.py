"""JSON of any size from any URL, gzip allowed; errors name the file."""

from __future__ import annotations

import zlib
from typing import Any

import orjson

from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import FileInfo, list_files, read_bytes

MAX_JSON_BYTES = 8 << 30
"""More than any benchmark's file after decompression; a gzip bomb ends here."""


def load_json(url: str) -> Any:
    """Parse one file.

    Raises:
        BadTracks: not JSON, not gzip, or too large.
        FileNotFoundError: no such file.
        OSError: could not be read.
    """
    data = read_bytes(url)
    if data[:2] == b"\x1f\x8b":
        data = _gunzip(data, url)
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadTracks(f"{redact(url)}: not valid JSON: {error}") from None


def json_files(url: str) -> list[FileInfo]:
    """The file itself, or every `.json` and `.json.gz` below a folder, sorted.

    Raises:
        BadTracks: a folder without any.
        FileNotFoundError: there is nothing at that URL.
    """
    files = list_files(url)
    found = [file for file in files if file.uri.lower().endswith((".json", ".json.gz"))]
    if not found:
        # A file of another name was meant as it is; a folder without JSON was not.
        if len(files) == 1 and files[0].uri.rstrip("/").endswith(url.rstrip("/").rsplit("/", 1)[-1]):
            return files
        raise BadTracks(f"{redact(url)}: holds no .json or .json.gz file")
    return found


def _gunzip(data: bytes, url: str) -> bytes:
    parts, total = [], 0
    while data:
        member = zlib.decompressobj(wbits=31)
        try:
            part = member.decompress(data, MAX_JSON_BYTES - total)
        except zlib.error as error:
            raise BadTracks(f"{redact(url)}: a broken gzip file: {error}") from None
        total += len(part)
        if not member.eof:
            if total >= MAX_JSON_BYTES:
                raise BadTracks(f"{redact(url)}: more than {MAX_JSON_BYTES:,} bytes when unpacked")
            raise BadTracks(f"{redact(url)}: a gzip file that ends early; copy it again")
        parts.append(part)
        data = member.unused_data.lstrip(b"\0")
    return b"".join(parts)
