"""The pages of a Parquet column: how many values and bytes they hold, from their headers and not from the footer.

A header is a Thrift structure in the compact protocol (https://github.com/apache/parquet-format, `PageHeader`). It says
how long the page is once it is unpacked; the decoder makes room for that at once, and so have to know it first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_PLAIN, _PLAIN_DICTIONARY, _DELTA_LENGTHS, _RLE_DICTIONARY = 0, 2, 6, 8
"""Encodings of texts. There is one more, in which each text repeats the beginning of the one before it."""

_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_MAX_DEPTH = 16
_PAGE_BYTES = 1024
"""What a page costs beside its bytes; millions of empty ones are refused by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnPages:
    """All pages of a column chunk.

    Args:
        num_values: in data pages, empty cells and places of lists included.
        unpacked_bytes: of all pages.
        dictionary_values: in the dictionary page.
        num_pages: of any kind.
        encodings: numbers of those that data pages have.
    """

    num_values: int
    unpacked_bytes: int
    dictionary_values: int
    num_pages: int
    encodings: frozenset[int]

    @property
    def can_stay_dictionary(self) -> bool:
        """Whether the decoder can give texts as places in a dictionary."""
        return self.encodings <= {_PLAIN, _PLAIN_DICTIONARY, _RLE_DICTIONARY}

    def memory_bytes(self, width: int, texts: bool) -> int:
        """Bytes in memory while the chunk is decoded, at most.

        Args:
            width: bytes of a value and its levels; of a text, those of its place in the dictionary.
            texts: whether it holds texts; those that stay in their dictionary count once.
        """
        taken = self.unpacked_bytes + self.num_values * width + self.dictionary_values * (16 + width)
        if texts and not self.can_stay_dictionary and self.encodings != {_DELTA_LENGTHS}:
            taken += self.num_values * self.unpacked_bytes
        return taken + self.num_pages * _PAGE_BYTES


def chunk_pages(data: bytes, chunk: Any, begin: int = 0) -> ColumnPages:
    """Read the headers of all pages of a column chunk.

    Args:
        data: the whole file, or the part of it that holds the chunk.
        chunk: `pyarrow.parquet.ColumnChunkMetaData`; only places in the file are believed.
        begin: of the part in the file, in bytes.

    Raises:
        ValueError: pages lie outside of the file, or contradict themselves.
    """
    start, end = chunk_place(chunk)
    if not begin <= start <= end <= begin + len(data):
        raise ValueError(f"lies at bytes {start} to {end} of {begin + len(data)}")
    start, end = start - begin, end - begin
    num_values = unpacked_bytes = dictionary_values = num_pages = 0
    encodings = set()
    while num_values < chunk.num_values:
        if start >= end:
            raise ValueError(f"its pages hold {num_values} values of {chunk.num_values}")
        reader = _Compact(data, start, end)
        header = reader.structure()
        kind, unpacked, packed = (_whole(header, field) for field in (1, 2, 3))
        start = reader.position + packed
        if start > end:
            raise ValueError("a page ends behind the column")
        unpacked_bytes += unpacked
        num_pages += 1
        if kind == _DICTIONARY:
            values = _whole(header.get(7), 1)
            if values > unpacked:
                raise ValueError(f"a dictionary of {values} values in {unpacked} bytes")
            dictionary_values += values
        elif kind in (_DATA, _DATA_V2):
            page = header.get(5 if kind == _DATA else 8)
            num_values += _whole(page, 1)
            encodings.add(_whole(page, 2 if kind == _DATA else 4))
    return ColumnPages(
        num_values=num_values,
        unpacked_bytes=unpacked_bytes,
        dictionary_values=dictionary_values,
        num_pages=num_pages,
        encodings=frozenset(encodings),
    )


def chunk_place(chunk: Any) -> tuple[int, int]:
    """Where a column chunk begins and ends in its file, as the footer says."""
    start: int = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
        start = chunk.dictionary_page_offset
    return start, start + int(chunk.total_compressed_size)


def _whole(fields: Any, number: int) -> int:
    value = fields.get(number) if isinstance(fields, dict) else None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("a page has a damaged header")
    return value


class _Compact:
    """Reads one Thrift structure; numbers are kept, texts and lists passed over.

    Args:
        data: where it stands.
        position: of its first byte.
        end: where it ends at the latest.
    """

    def __init__(self, data: bytes, position: int, end: int) -> None:
        self._data, self._end = data, end
        self.position = position

    def structure(self, depth: int = 0) -> dict[int, Any]:
        """By the number of a field: its value."""
        if depth > _MAX_DEPTH:
            raise ValueError("a page has a damaged header")
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._signed()
            fields[number] = self._value(head & 15, depth, inside_list=False)
        return fields

    def _value(self, kind: int, depth: int, inside_list: bool) -> Any:
        if kind in (1, 2):  # true and false: a field has no byte for it, an entry of a list has one
            return self._pass(1) if inside_list else kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._signed()
        if kind == 7:
            return self._pass(8)
        if kind == 8:
            return self._pass(self._unsigned())
        if kind in (9, 10):
            head = self._byte()
            size = head >> 4 if head >> 4 < 15 else self._unsigned()
            self._holds(size)
            for _ in range(size):
                self._value(head & 15, depth + 1, inside_list=True)
            return None
        if kind == 12:
            return self.structure(depth + 1)
        raise ValueError("a page has a damaged header")

    def _byte(self) -> int:
        self._holds(1)
        self.position += 1
        return self._data[self.position - 1]

    def _pass(self, count: int) -> None:
        self._holds(count)
        self.position += count

    def _holds(self, count: int) -> None:
        if self.position + count > self._end:
            raise ValueError("a page has a damaged header")

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError("a page has a damaged header")

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
