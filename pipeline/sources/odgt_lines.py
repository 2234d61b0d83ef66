"""Where the lines of an odgt file lie: one JSON object a line, one line a picture, told by `ID`.

The file is walked once, a block at a time, so memory does not grow with it but for a few bytes a line. Items keep the
byte range of their line, so that a worker reads that line and nothing else.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Any

import orjson

from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.fetching import shown
from trackmill.pipeline.sources.probing import probe_files
from trackmill.pipeline.storage.credentials import path_error
from trackmill.pipeline.storage.files import open_for_seeking
from trackmill.pipeline.storage.retries import retry

MAX_LINE_BYTES = 16 << 20
"""Of one line; the longest of CrowdHuman has 100 KB. Parsed, it takes up to 22 times its size in memory."""

MAX_ID_CHARACTERS = 300
"""Of the name of a picture; more than any file system has."""

MAX_LINES = 5_000_000
"""Of one file; CrowdHuman has 15,000."""

_BLOCK_BYTES = 4 << 20
_BOM = b"\xef\xbb\xbf"
_ID = re.compile(rb'"ID"\s*:\s*"((?:[^"\\]|\\.){1,300})"')


@dataclass(frozen=True, slots=True)
class OdgtLine:
    """One line.

    Args:
        id: of its picture.
        number: counted from 1.
        offset, length: its bytes.
        checksum: CRC-32 of them.
        problem: what is wrong with it; "" if nothing is.
    """

    id: str
    number: int
    offset: int
    length: int
    checksum: int
    problem: str = ""


@dataclass(slots=True)
class OdgtIndex:
    """What a file holds.

    Args:
        lines: those that say which picture they are of, each picture once.
        nameless: number of the lines that do not; `first_nameless` is number and fault of the first.
        problem: why the file could not be read, or not to its end.
    """

    lines: list[OdgtLine] = field(default_factory=list)
    nameless: int = 0
    first_nameless: str = ""
    problem: str = ""


def index_odgt(uris: Sequence[str]) -> Iterator[OdgtIndex]:
    """The index of each file, in the order given."""
    return probe_files(uris, _index_or_reason, "annotation files", lambda reason: OdgtIndex(problem=reason))


def parse_line(data: bytes, where: str) -> dict[str, Any]:
    """The object of a line.

    Raises:
        BadItem: not JSON, or no object; names `where`.
    """
    try:
        value = orjson.loads(data.removeprefix(_BOM))
    except orjson.JSONDecodeError as error:
        raise BadItem(f"{where}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadItem(f"{where}: should be a JSON object, found {shown(value)}")
    return value


def _index_or_reason(uri: str) -> OdgtIndex:
    try:
        return retry(lambda: _index(uri), uri)
    except FileNotFoundError:
        return OdgtIndex(problem="no such file")
    except OSError as error:
        return OdgtIndex(problem=f"cannot be read: {path_error(error) or error}")


def _index(uri: str) -> OdgtIndex:
    index = OdgtIndex()
    seen: dict[str, int] = {}
    with open_for_seeking(uri, block_size=_BLOCK_BYTES) as handle:
        try:
            for number, offset, data in _lines(handle):
                _enter(index, seen, number, offset, data)
        except BadItem as error:
            index.problem = str(error)
    return index


def _lines(handle: IO[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """Number, offset and bytes of each line that is not empty."""
    if handle.read(2) in (b"\xff\xfe", b"\xfe\xff"):
        raise BadItem("is UTF-16 text; save it as UTF-8")
    handle.seek(0)
    offset, rest, number = 0, b"", 0
    while True:
        block = handle.read(_BLOCK_BYTES)
        lines = (rest + block).split(b"\n")
        rest = lines.pop() if block else b""
        for line in lines:
            number += 1
            if number > MAX_LINES:
                raise BadItem(f"has more than {MAX_LINES:,} lines; split it")
            if line.strip().removeprefix(_BOM):
                yield number, offset, line
            offset += len(line) + 1
        if not block:
            return
        if len(rest) > MAX_LINE_BYTES:
            raise BadItem(
                f"line {number + 1} has more than {MAX_LINE_BYTES:,} bytes: should be one JSON object a line and a "
                "picture; what follows is lost"
            )


def _enter(index: OdgtIndex, seen: dict[str, int], number: int, offset: int, data: bytes) -> None:
    problem = ""
    try:
        value = parse_line(data, f"line {number}")
        identity = value.get("ID")
        if not isinstance(identity, str) or not 0 < len(identity) <= MAX_ID_CHARACTERS:
            identity = ""
            raise BadItem(f"line {number}: 'ID' should be the name of its picture, found {shown(value.get('ID'))}")
    except BadItem as error:
        problem = str(error)
        # A line that is cut or garbled may still say which picture it is of.
        match = _ID.search(data)
        identity = match[1].decode("utf-8", "replace") if match else ""
    if not identity:
        index.nameless += 1
        index.first_nameless = index.first_nameless or problem
        return
    if identity in seen:
        place = seen[identity]
        first = index.lines[place]
        twice = f"ID {shown(identity)} stands in line {first.number} and in line {number}; remove one"
        index.lines[place] = replace(first, problem=first.problem or twice)
        return
    seen[identity] = len(index.lines)
    index.lines.append(OdgtLine(identity, number, offset, len(data), zlib.crc32(data), problem))
