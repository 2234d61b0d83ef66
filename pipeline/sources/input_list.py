"""Inputs that are written in short: a text file of names and URLs, and numbered shards as WebDataset writes them."""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Iterable

from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.names import escaped
from trackmill.pipeline.storage.secrets.signed_urls import without_signature
from trackmill.pipeline.storage.urls import canonical, dirname, is_local, join
from trackmill.schemas.errors import InputError

STDIN = "-"
_MOST_BYTES = 1 << 30
_MOST_SHARDS = 1_000_000
_MOST_CHARACTERS = 1 << 29
"""Of all names that ranges make, each with its `_OVERHEAD` in memory: five million names of usual length."""
_OVERHEAD = 57
_RANGE = re.compile(r"\{([0-9]{1,12})\.\.([0-9]{1,12})\}")


def read_input_list(where: str) -> list[str]:
    """The inputs that a list names, in its order, each once.

    Empty lines, and lines that begin with `#`, are passed over. A list that holds zero bytes, as `find -print0` writes
    it, has no lines, and names may hold line breaks. Relative names are relative to the folder that the list lies in;
    on standard input, to the working directory.

    Args:
        where: path or URL of the list, or `-` for standard input.

    Raises:
        InputError: it names nothing, or is no UTF-8 text (names that are none may stand in it, but not zero bytes of
            UTF-16).
        OSError: could not be read.
    """
    data = sys.stdin.buffer.read(_MOST_BYTES + 1) if where == STDIN else read_bytes(where, max_bytes=_MOST_BYTES)
    shown = "standard input" if where == STDIN else redact(where)
    if len(data) > _MOST_BYTES:
        raise InputError(f"--input-list {shown}: more than {_MOST_BYTES:,} bytes")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"--input-list {shown}: is UTF-16 text; save it as UTF-8")
    # Bytes that are no UTF-8 are part of a name.
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    if "\0" in text:
        names = [name for name in text.split("\0") if name.strip()]
    else:
        lines = (line.strip() for line in text.split("\n"))
        names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise InputError(f"--input-list {shown}: names no input; write one file, folder or URL a line")
    folder = "." if where == STDIN else dirname(canonical(where))
    return list(dict.fromkeys(escaped(without_signature(_placed(name, folder), for_all=False)) for name in names))


def expand_shards(urls: Iterable[str]) -> list[str]:
    """Inputs with `{000000..000147}` written out, as WebDataset and shells read it; others as they are.

    Raises:
        InputError: a range that counts down, or more names than `_MOST_SHARDS` or `_MOST_CHARACTERS` allow.
    """
    expanded: list[str] = []
    left = _MOST_CHARACTERS
    for url in urls:
        if _RANGE.search(url) is None or (is_local(url) and os.path.lexists(url)):
            expanded.append(url)
            continue
        parts, count = _parts(url)
        left -= count * (len(url) + _OVERHEAD)
        if left < 0:
            raise InputError(f"{_shown(url)}: its ranges, with those before, make more names than fit into memory")
        expanded += map("".join, itertools.product(*parts))
    return expanded


def _parts(url: str) -> tuple[list[list[str]], int]:
    """What stands in each place of a name with ranges, and how many names that makes."""
    pieces = _RANGE.split(url)
    parts: list[list[str]] = []
    count = 1
    for text, begin, end in zip(pieces[::3], pieces[1::3], pieces[2::3]):
        first, last = int(begin), int(end)
        count *= last + 1 - first
        if last < first or count > _MOST_SHARDS:
            raise InputError(
                f"{_shown(url)}: {{{begin}..{end}}} should count up, and all ranges of a name together make at most "
                f"{_MOST_SHARDS} names"
            )
        parts += [[text], [f"{number:0{len(begin)}d}" for number in range(first, last + 1)]]
    return [*parts, [pieces[-1]]], count


def _shown(url: str) -> str:
    shown = redact(url)
    return shown if len(shown) <= 200 else f"{shown[:100]}…{shown[-100:]}"


def _placed(name: str, folder: str) -> str:
    if not is_local(name) or "://" in name or name.startswith(("/", "~")):
        return name
    return join(folder, name)
