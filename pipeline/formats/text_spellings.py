"""Text as editors, shells and spreadsheets write it, made plain: UTF-8, one newline a line, commas between columns."""

from __future__ import annotations

import re
from collections.abc import Callable

from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.storage.credentials import redact

_BOM = b"\xef\xbb\xbf"
_BLANKS = bytes.maketrans(b"\f\v", b"  ")
"""Form feeds and vertical tabs part pages, not columns."""
_TEXT = bytes([9, 10, 11, 12, 13, *range(32, 256)])
"""All characters but control codes."""
_PIECE = 1 << 20
_FEWEST = 6
"""A line with so many semicolons (or blanks) has its columns parted by them."""


def utf8(data: bytes, url: str) -> bytes:
    """The bytes as UTF-8 without byte order marks.

    PowerShell and Excel write UTF-16, with a byte order mark or without.

    Raises:
        BadTracks: no text.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _decoded(data, "utf-16", url)
    if b"\0" in data:
        # Of two bytes of a plain character one is zero: the second in little-endian order.
        for odd, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
            if len(data) % 2 == 0 and not any(data[odd::2]) and not data[1 - odd :: 2].translate(None, _TEXT):
                return _decoded(data, encoding, url)
        raise BadTracks(f"{redact(url)}: not a text file")
    # In the middle too: files with marks are joined by `cat`.
    return data.replace(_BOM, b"") if _BOM in data else data


def with_commas(data: bytes) -> bytes:
    """Lines ended by one newline, columns parted by commas, decimals behind points.

    Where the first line has its columns parted by semicolons, tabs or blanks, commas are decimal commas.
    """
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"\f" in data or b"\v" in data:
        data = data.translate(_BLANKS)
    first = first_line(data)
    if b'"' in first:
        data = data.replace(b'"', b"")
        first = first_line(data)
    parted = first.count(b";") >= _FEWEST
    if not parted and b"," in first:
        cells = first.split()
        parted = len(cells) > _FEWEST and not any(cell.startswith(b",") or cell.endswith(b",") for cell in cells)
    if parted or b"," not in first:
        if b"," in data:
            data = data.replace(b",", b".")
        data = each_piece(lambda piece: re.sub(rb"[ \t;]+", b",", re.sub(rb"(?m)^[ \t]+|[ \t]+$", b"", piece)), data)
    return data


def each_piece(change: Callable[[bytes], bytes], data: bytes) -> bytes:
    """Whole lines, about a megabyte of them at a time, changed and joined again.

    A regular expression notes each place that it replaces: those of a whole file would take gigabytes.
    """
    pieces, begin = [], 0
    while begin < len(data):
        end = data.find(b"\n", begin + _PIECE) + 1 or len(data)
        pieces.append(change(data[begin:end]))
        begin = end
    return b"".join(pieces)


def first_line(data: bytes) -> bytes:
    """The first line that holds anything, from its first character on; empty where there is none."""
    found = re.search(rb"\S[^\n]*", data)
    return found[0] if found is not None else b""


def _decoded(data: bytes, encoding: str, url: str) -> bytes:
    try:
        return data.decode(encoding).encode().replace(_BOM, b"")
    except UnicodeDecodeError:
        raise BadTracks(f"{redact(url)}: begins as UTF-16 text and is none; write it as UTF-8") from None
