"""Inputs that are written in short: a text file of names and URLs, and numbered shards as WebDataset writes them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable

from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import canonical, dirname, is_local, join, read_bytes
from trackmill.pipeline.storage.names import spelt
from trackmill.pipeline.storage.signed import without_signature
from trackmill.schemas.errors import InputError

STDIN = "-"
_MOST_BYTES = 1 << 30
_MOST_SHARDS = 1_000_000
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
    data = sys.stdin.buffer.read() if where == STDIN else read_bytes(where, max_bytes=_MOST_BYTES)
    shown = "standard input" if where == STDIN else redact(where)
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
    return list(dict.fromkeys(spelt(without_signature(_placed(name, folder), for_all=False)) for name in names))


def expand_shards(urls: Iterable[str]) -> list[str]:
    """Inputs with `{000000..000147}` written out, as WebDataset and shells read it; others as they are.

    Raises:
        InputError: a range that counts down, or makes more than a million names.
    """
    expanded: list[str] = []
    for url in urls:
        match = _RANGE.search(url)
        if match is None or (is_local(url) and os.path.lexists(url)):
            expanded.append(url)
            continue
        first, last = int(match[1]), int(match[2])
        if not first <= last < first + _MOST_SHARDS:
            raise InputError(f"{redact(url)}: {match[0]} should count up, over at most {_MOST_SHARDS} names")
        names = (f"{number:0{len(match[1])}d}" for number in range(first, last + 1))
        expanded += expand_shards(f"{url[: match.start()]}{name}{url[match.end() :]}" for name in names)
    return expanded


def _placed(name: str, folder: str) -> str:
    if not is_local(name) or "://" in name or name.startswith(("/", "~")):
        return name
    return join(folder, name)
