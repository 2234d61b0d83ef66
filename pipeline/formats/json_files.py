"""JSON of any size from any URL, gzip allowed; errors name file, line and column, and say how to mend it."""

from __future__ import annotations

import re
from typing import Any

import orjson

from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.formats.packed import gunzipped
from trackmill.pipeline.formats.text_spellings import utf8
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.list_files import FileInfo, list_files

MAX_JSON_BYTES = 8 << 30
"""More than any benchmark's file, also after unpacking."""

PARSED_FLOOR = 1536 << 20
"""The values of every file may take so many bytes in memory."""

PARSED_PER_BYTE = 20
"""They may also take so many for each byte of the file. Track files and annotations take 4 to 12."""

_MOST_PER_BYTE = 40
"""No file takes more: lists in lists take 33."""


def load_json(url: str) -> Any:
    """Parse one file.

    Raises:
        BadTracks: not JSON, not gzip, or too large.
        FileNotFoundError: no such file.
        OSError: could not be read.
    """
    data: bytes | bytearray = read_bytes(url, max_bytes=MAX_JSON_BYTES)
    if data[:2] == b"\x1f\x8b":
        data = gunzipped(bytes(data), redact(url), MAX_JSON_BYTES)
    if b"\0" in data[:4] or data.startswith(b"\xff\xfe"):
        data = utf8(bytes(data), url)
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    limit = max(PARSED_FLOOR, PARSED_PER_BYTE * len(data))
    if len(data) * _MOST_PER_BYTE > limit and (cost := _cost(data)) > limit:
        raise BadTracks(
            f"{redact(url)}: its values would take about {cost:,} bytes in memory, more than {len(data):,} of JSON "
            f"may ({limit:,}, see PARSED_FLOOR and PARSED_PER_BYTE in pipeline/formats/json_files.py)"
        )
    try:
        return orjson.loads(data)
    except SystemError as error:  # how its parser says that there is no memory
        raise MemoryError(f"{redact(url)}: its values do not fit") from error
    except orjson.JSONDecodeError as error:
        raise BadTracks(f"{redact(url)}: not valid JSON{_fault(data, error)}") from None


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


def _fault(data: bytes | bytearray, error: orjson.JSONDecodeError) -> str:
    """Where JSON is broken, what stands there, and what to do."""
    try:
        text = data.decode()
    except UnicodeDecodeError as wrong:
        line = data.count(b"\n", 0, wrong.start) + 1
        return f": line {line} is not UTF-8; write the file as UTF-8"
    before, after = text[: error.pos], text[error.pos :]
    if not text.strip():
        return ": the file is empty"
    if not after.strip():
        return f": it ends early, in line {error.lineno}; copy it or write it again"
    advice = error.msg
    if re.match(r"-?(NaN|Infinity)", after):
        advice = "JSON has no NaN and no Infinity; write a number, or leave the object out"
    elif after.startswith("'"):
        advice = "text stands in double quotes; write the file with a JSON library, not with print"
    elif re.search(r"\d(,\s*)?$", before) and re.match(r"[_\d]", after):
        advice = "a number is written as 10.5, with a point and without underscores"
    elif after.lstrip()[0] in "[{" and error.msg.startswith("unexpected content after"):
        advice = "there is more than one document; write one list"
    shown = " ".join(f"{before[-30:]}{after[:30]}".split())
    return f": line {error.lineno}, column {error.colno}: {advice}; near {shown!r}"


def _cost(data: bytes | bytearray) -> int:
    """Bytes that the values take in memory once they are parsed, by a count of the marks; about right, or too much."""
    lists, objects, values = data.count(b"["), data.count(b"{"), data.count(b'":')
    texts = max(0, data.count(b'"') // 2 - values)  # keys are shared
    return 72 * lists + 72 * objects + 160 * min(objects, values) + 25 * values + 60 * texts + 32 * data.count(b",")
