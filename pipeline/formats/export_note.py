"""The note that `trackmill export-data` leaves beside its files, `export-train.json`: how, and whether that is all."""

from __future__ import annotations

import re

import orjson

from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.limits import FileTooLarge
from trackmill.pipeline.storage.urls import basename

_NAME = re.compile(r"export-([A-Za-z0-9_-]+)\.json")
_MAX_BYTES = 16 << 20


def note_name(part: str) -> str:
    """Of the file, for a part such as train."""
    return f"export-{part}.json"


def part_of(name: str) -> str | None:
    """The part that a file's name is the note of; None for other names."""
    match = _NAME.fullmatch(name)
    return match[1] if match else None


def is_note(uri: str) -> bool:
    """Whether a file is such a note, by its name and by what it says; one that cannot be read is none."""
    if part_of(basename(uri)) is None:
        return False
    try:
        values = orjson.loads(read_bytes(uri, max_bytes=_MAX_BYTES))
    except (OSError, FileTooLarge, orjson.JSONDecodeError):  # whoever reads it as something else says why
        return False
    return isinstance(values, dict) and {"trackmill", "format", "data"} <= values.keys()
