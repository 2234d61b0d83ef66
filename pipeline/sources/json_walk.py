"""A large JSON document walked once: each element of its lists, with the bytes that it lies in, and nothing kept.

The document is an object, such as COCO's, whose keys hold lists of objects. One element at a time is in memory, and of
the file a window of a few megabytes. Bytes are read as Latin-1 for it, so that places in text are places in the file;
names have to be parsed again from the bytes (`orjson.loads`), which are UTF-8.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from json import JSONDecoder
from typing import IO, Any

from trackmill.pipeline.media.errors import BadItem

MAX_VALUE_BYTES = 64 << 20
"""Of one element of a list, or of a value that is no list. Parsed, it may take twenty times as much."""

_BLOCK_BYTES = 4 << 20
_SPACE = " \t\r\n"
_NUMBER = "0123456789+-.eEINa"
"""What a number, or the NaN that some programs write, may go on with in the next block."""

_DECODER = JSONDecoder(strict=False)


@dataclass(frozen=True, slots=True)
class Element:
    """A part of the document.

    Args:
        key: of the outermost object.
        position: in its list, from 0; -1 for a value that is no list, and for a list that is empty.
        offset, length: bytes in the file.
        value: as parsed from Latin-1.
        data: the bytes themselves.
    """

    key: str
    position: int
    offset: int
    length: int
    value: Any
    data: bytes


def walk_json(handle: IO[bytes]) -> Iterator[Element]:
    """The elements of all lists of a document, and its other values, in the order of the file.

    Raises:
        BadItem: not UTF-8 JSON, no object, cut short, nested too deeply, or with an element that is too large; says
            where.
    """
    window = _Window(handle)
    if window.next() != "{":
        raise BadItem("should be a JSON object with 'images', 'annotations' and 'categories'")
    window.skip("{")
    if window.next() == "}":
        return
    while True:
        key = window.value()[0]
        if not isinstance(key, str):
            raise window.fault("a key should be text")
        window.skip(":")
        if window.next() == "[":
            yield from _elements(window, key)
        else:
            yield _element(window, key, -1)
        if window.next() != ",":
            break
        window.skip(",")
        if window.next() != '"':
            raise window.fault("a key in double quotes should follow")
    window.skip("}")
    if window.next():
        raise window.fault("there is more than one document")


def _elements(window: _Window, key: str) -> Iterator[Element]:
    window.skip("[")
    if window.next() == "]":
        yield Element(key, -1, window.offset, 0, [], b"")
        window.skip("]")
        return
    position = 0
    while True:
        yield _element(window, key, position)
        position += 1
        if window.next() != ",":
            break
        window.skip(",")
    window.skip("]")


def _element(window: _Window, key: str, position: int) -> Element:
    value, offset, data = window.value()
    return Element(key, position, offset, len(data), value, data)


class _Window:
    """A part of the file as text, and a place in it."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self._text = ""
        self._place = 0
        self._base = 0
        self._ended = False
        self._more()
        if self._text.startswith("\x1f\x8b"):
            raise BadItem("is packed with gzip; unpack it, so that workers can read their parts of it")
        if self._text.startswith(("\xff\xfe", "\xfe\xff")) or "\0" in self._text[:4]:
            raise BadItem("is UTF-16 or UTF-32 text; save it as UTF-8")
        if self._text.startswith("\xef\xbb\xbf"):
            self._place = 3

    @property
    def offset(self) -> int:
        """Of the place, in the file."""
        return self._base + self._place

    def next(self) -> str:
        """The next character that is no space, without passing it; "" at the end."""
        while True:
            while self._place < len(self._text) and self._text[self._place] in _SPACE:
                self._place += 1
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._more():
                return ""

    def skip(self, wanted: str) -> None:
        """Pass one character.

        Raises:
            BadItem: another one stands there.
        """
        found = self.next()
        if found != wanted:
            raise self.fault(f"{wanted!r} should stand there, found {found!r}" if found else "it ends early")
        self._place += 1

    def value(self) -> tuple[Any, int, bytes]:
        """The next value, its offset in the file, and its bytes.

        Raises:
            BadItem: see `walk_json`.
        """
        if not self.next():
            raise self.fault("it ends early")
        wanted = _BLOCK_BYTES
        while True:
            reason = "not valid JSON"
            try:
                value, end = _DECODER.raw_decode(self._text, self._place)
            except RecursionError:
                raise self.fault("it is nested too deeply") from None
            except ValueError as error:
                reason = str(error).split(":")[0].lower()
            else:
                # A number at the end may go on, and so may the text that a number ends at.
                if self._ended or end < len(self._text) or self._text[-1] not in _NUMBER:
                    data = self._text[self._place : end].encode("latin-1")
                    offset, self._place = self.offset, end
                    return value, offset, data
            if self._ended:
                raise self.fault(reason)
            if len(self._text) - self._place > MAX_VALUE_BYTES:
                raise self.fault(f"{reason}, or an element of more than {MAX_VALUE_BYTES:,} bytes")
            self._more(wanted)
            wanted *= 2  # not once more for each block of a value that is long

    def fault(self, reason: str) -> BadItem:
        """An error about what stands at the place."""
        near = " ".join(self._text[self._place : self._place + 40].split())
        what = "cut short or broken" if self._ended and len(self._text) - self._place < 200 else "broken"
        return BadItem(f"{what} at byte {self.offset:,}: {reason}" + (f"; near {near!r}" if near else ""))

    def _more(self, wanted: int = 0) -> bool:
        block = self._handle.read(wanted or _BLOCK_BYTES)
        self._ended = not block
        self._base += self._place
        self._text = self._text[self._place :] + block.decode("latin-1")
        self._place = 0
        return bool(block)
