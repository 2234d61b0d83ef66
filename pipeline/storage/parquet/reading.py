"""Reading of untrusted Parquet: the memory that a file will take is known before a row of it is decoded.

A file of kilobytes may hold gigabytes: pages that are packed, one text that a dictionary repeats a million times, runs
of one number. The footer may declare something else. So the footer has its own size limit, the headers of all pages
are read (`pages`), and texts stay dictionary-encoded until the sum of their lengths is known. Checksums of
pages and of the file (`checksum`) are checked where a file has them.

What a file may take grows with its own size, since a real table of millions of rows is a file of many megabytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trackmill.pipeline.storage.names import printable
from trackmill.pipeline.storage.parquet.checksum import (
    CHECKSUM_BYTES,
    ChecksumMismatch,
    check_file_checksum,
    check_footer_checksum,
)
from trackmill.pipeline.storage.parquet.pages import chunk_pages
from trackmill.schemas.errors import InputError

MAX_FOOTER_BYTES = 8 << 20
"""Of the footer: schema, places of the columns, metadata. Read, it takes up to 200 times as much."""

MAX_FOOTER_ENTRIES = 100_000
"""Of each list in the footer: columns, row groups."""

MEMORY_FLOOR = 512 << 20
"""Every file may take so many bytes in memory, however small it is."""

MEMORY_PER_BYTE = 64
"""A file may also take so many bytes in memory for each of its own. Tables of ours take 5 to 30."""

MAX_TABLE_FILE_BYTES = 4 << 30
"""Of a file of a data set: a receipt, a part of a plan, a manifest. That of 11 million pictures has 250 MB."""

_ENDING = b"PAR1"
_LEVELS, _LIST_LEVELS = 4, 12
"""What the decoder notes of each value: whether it is there, and in lists where one begins."""


class BadParquet(InputError):
    """A file that is no Parquet, is damaged, has other columns, or unfolds beyond its limit; the text does not name it.

    The caller adds the name of the file and what to do.
    """


class RowGroup:
    """Some row groups of a Parquet file, of which nothing but the footer has been decoded.

    Args:
        footer: of the whole file.
        groups: numbers of the row groups.
        data: bytes of the file that hold them.
        begin: where these begin in the file.
        limit: what they may take in memory, in bytes.

    Raises:
        BadParquet: the footer contradicts itself.
    """

    def __init__(self, footer: pq.FileMetaData, groups: range, data: bytes, begin: int, limit: int) -> None:
        self._footer, self._groups, self._data, self._begin, self._limit = footer, groups, data, begin, limit
        try:
            self.schema: pa.Schema = footer.schema.to_arrow_schema()
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(error) from None
        self.num_rows: int = sum(footer.row_group(number).num_rows for number in groups)
        self._places = _leaves(footer)

    def read(self, columns: Sequence[str], *, row_bytes: int = 0) -> pa.Table:
        """Some columns, in this order, without the file's metadata. Texts come as `string`.

        Args:
            columns: names; each holds numbers, texts, times, or lists of numbers.
            row_bytes: what a row costs the caller in Python objects; counts towards the limit.

        Raises:
            BadParquet: a column is missing or of another kind, pages are damaged, or all would take more memory than
                the file may.
        """
        missing = [name for name in columns if name not in self.schema.names]
        if missing:
            raise BadParquet(f"has no column {missing[0]!r}")
        for name in columns:
            if self.schema.names.count(name) > 1:
                raise BadParquet(f"has two columns {name!r}")
            if not _is_plain(self.schema.field(name).type):
                raise BadParquet(f"column {name!r} holds {str(self.schema.field(name).type)[:80]}")
        taken = self.num_rows * row_bytes
        self._check_memory(taken, f"{self.num_rows:,} rows")
        texts = [name for name in columns if _is_text(self.schema.field(name).type)]
        dictionaries = []
        for name in columns:
            chunks = self._chunks(name)
            taken += chunks.memory
            self._check_memory(taken, f"column {name!r} and those before it")
            if name in texts and chunks.can_stay_dictionary:
                dictionaries.append(self._places[name][0])
        try:
            file = pq.ParquetFile(
                pa.PythonFile(_Part(self._data, self._begin), "r") if self._begin else pa.BufferReader(self._data),
                metadata=self._footer,
                read_dictionary=dictionaries,
                page_checksum_verification=True,
                pre_buffer=False,
            )
            groups = list(self._groups)
            table = file.read_row_groups(groups, columns=list(columns), use_threads=False).select(list(columns))
            if len(table) != self.num_rows:
                raise BadParquet(f"has {len(table)} rows of {self.num_rows}")
            if taken + sum(_most_text_bytes(table[name]) for name in texts) > self._limit:
                for name in texts:
                    taken += sum(_text_bytes(chunk) for chunk in table[name].chunks)
                    self._check_memory(taken, f"column {name!r} and those before it")
            whole = [table[name].cast(pa.string()) if name in texts else table[name] for name in columns]
            return pa.table(whole, names=list(columns))
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if isinstance(error, MemoryError):
                raise
            raise _unreadable(error) from None

    def _check_memory(self, taken: int, what: str) -> None:
        if taken > self._limit:
            raise BadParquet(
                f"{what} would take {taken:,} bytes in memory, more than a file of {len(self._data):,} bytes may "
                f"({self._limit:,}, see MEMORY_FLOOR and MEMORY_PER_BYTE in pipeline/storage/parquet/reading.py)"
            )

    def _chunks(self, name: str) -> _Chunks:
        """Look at all pages of a column."""
        _, place = self._places[name]
        column = self._footer.schema.column(place)
        flat = column.max_repetition_level == 0
        width = max(8, column.length) + (_LEVELS if flat else _LIST_LEVELS)
        memory, can_stay_dictionary = 0, True
        for number in self._groups:
            group = self._footer.row_group(number)
            try:
                pages = chunk_pages(self._data, group.column(place), self._begin)
            except ValueError as error:
                raise BadParquet(f"damaged: column {name!r}, row group {number}: {error}") from None
            if flat and pages.num_values != group.num_rows:
                raise BadParquet(
                    f"damaged: column {name!r}, row group {number}: {pages.num_values} values in {group.num_rows} rows"
                )
            memory += pages.memory_bytes(width, _is_text(self.schema.field(name).type))
            can_stay_dictionary &= pages.can_stay_dictionary
            self._check_memory(memory, f"column {name!r}")
        return _Chunks(memory, can_stay_dictionary)


class ParquetData(RowGroup):
    """A Parquet file in memory, of which nothing but the footer has been decoded.

    Args:
        data: the whole file.
        floor: what it may take in memory even if it is small, in bytes, see `MEMORY_FLOOR`.
        ceiling: what it may never take, however large it is.

    Raises:
        BadParquet: no Parquet, a damaged footer, or one beyond `MAX_FOOTER_BYTES`.
    """

    def __init__(self, data: bytes, floor: int = MEMORY_FLOOR, ceiling: int | None = None) -> None:
        limit = memory_limit(len(data), floor)
        footer = read_footer(io.BytesIO(data), len(data))
        try:
            check_file_checksum(data)
        except ChecksumMismatch as error:
            raise BadParquet(f"damaged: {error}") from None
        super().__init__(
            footer, range(footer.num_row_groups), data, 0, limit if ceiling is None else min(limit, ceiling)
        )

    @property
    def metadata(self) -> Mapping[bytes, bytes]:
        """What is written down beside the table, by key."""
        return self.schema.metadata or {}


class _Part(io.RawIOBase):
    """Bytes of a file at their places in it; there is nothing before and after them."""

    def __init__(self, data: bytes, begin: int) -> None:
        self._data, self._begin, self._position = data, begin, begin

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence, self._begin + len(self._data))
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        at = self._position - self._begin
        if at < 0 or size < 0 or at + size > len(self._data):
            raise OSError("a page leaves its row group")
        self._position += size
        return self._data[at : at + size]


def memory_limit(size: int, floor: int = MEMORY_FLOOR) -> int:
    """What a file, or a part of one, of so many bytes may take in memory."""
    return max(floor, MEMORY_PER_BYTE * size)


@dataclass(frozen=True, slots=True)
class _Chunks:
    """What a whole column takes, and whether its texts can stay in their dictionaries."""

    memory: int
    can_stay_dictionary: bool


def parquet_metadata(handle: IO[bytes], size: int) -> Mapping[bytes, bytes]:
    """What is written down in a file's footer, by key; nothing else is read.

    Args:
        handle: can seek.
        size: of the file in bytes.

    Raises:
        BadParquet: no Parquet, or a damaged or too large footer.
    """
    return read_footer(handle, size).metadata or {}


def rows_and_largest(handle: IO[bytes], size: int, column: str) -> tuple[int, int | None]:
    """Number of rows, and the largest number in a column, by what the footer says; nothing else is read.

    Args:
        handle: can seek.
        size: of the file in bytes.
        column: holds whole numbers.

    Returns:
        None for the largest where the footer does not tell it, or there is no row.

    Raises:
        BadParquet: no Parquet, or a damaged or too large footer.
    """
    footer = read_footer(handle, size)
    _, place = _leaves(footer).get(column, ("", -1))
    largest: int | None = None
    for number in range(footer.num_row_groups if place >= 0 else 0):
        statistics = footer.row_group(number).column(place).statistics
        if statistics is None or not statistics.has_min_max or not isinstance(statistics.max, int):
            return footer.num_rows, None
        largest = statistics.max if largest is None else max(largest, statistics.max)
    return footer.num_rows, largest


def read_footer(handle: IO[bytes], size: int) -> pq.FileMetaData:
    """The footer of a file: schema, metadata, and where the columns lie; raises what `parquet_metadata` raises."""
    if size < 12:
        raise BadParquet("not a Parquet file: it has only a few bytes")
    handle.seek(size - 8)
    ending = handle.read(8)
    length = int.from_bytes(ending[:4], "little")
    if ending[4:] != _ENDING:
        raise BadParquet("not a Parquet file, or cut off: its last bytes are not PAR1")
    if length > size - 12:
        raise BadParquet(f"damaged: its footer should have {length:,} bytes, the file has {size:,}")
    if length > MAX_FOOTER_BYTES:
        raise BadParquet(f"its footer has {length:,} bytes, more than the limit of {MAX_FOOTER_BYTES:,}")
    try:
        before = min(CHECKSUM_BYTES, size - 8 - length)
        handle.seek(size - 8 - length - before)
        end = handle.read(before + length) + ending
        check_footer_checksum(end)
        # The footer alone: nothing that stands in it can make the parser read elsewhere.
        alone = io.BytesIO(_ENDING + end[before:])
        footer = pq.ParquetFile(
            alone, thrift_string_size_limit=MAX_FOOTER_BYTES, thrift_container_size_limit=MAX_FOOTER_ENTRIES
        ).metadata
    except ChecksumMismatch as error:
        raise BadParquet(f"damaged: {error}") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, MemoryError):
            raise
        raise _unreadable(error) from None
    groups = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
    if footer.num_rows < 0 or min(groups, default=0) < 0 or sum(groups) != footer.num_rows:
        raise BadParquet(f"its footer declares {footer.num_rows} rows, and its parts {sum(groups)}")
    return footer


def _leaves(footer: pq.FileMetaData) -> dict[str, tuple[str, int]]:
    """By the name of a column: path and place of what it holds. Columns of several parts, which are not read, miss."""
    found: dict[str, tuple[str, int]] = {}
    for place in range(len(footer.schema)):
        path = footer.schema.column(place).path
        found.setdefault(path, (path, place))
        found.setdefault(path.partition(".")[0], (path, place))
    return found


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or (pa.types.is_dictionary(kind) and _is_text(kind.value_type))
    )


def _is_plain(kind: pa.DataType) -> bool:
    """Whether a column is one leaf of known width, texts, or lists of such numbers."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return bool(pa.types.is_primitive(kind.value_type))
    return _is_text(kind) or bool(pa.types.is_primitive(kind)) or pa.types.is_null(kind)


def _most_text_bytes(column: pa.ChunkedArray) -> int:
    """Bytes that the texts of a column cannot exceed, written out; quickly found, and enough for most files."""
    most = 0
    for chunk in column.chunks:
        repeated = isinstance(chunk, pa.DictionaryArray)
        most += (chunk.dictionary.nbytes + 8) * len(chunk) if repeated else chunk.nbytes
    return most


def _text_bytes(chunk: pa.Array) -> int:
    """Bytes of all texts of a chunk, written out."""
    if not isinstance(chunk, pa.DictionaryArray):
        return int(chunk.nbytes)
    lengths = pc.binary_length(chunk.dictionary.cast(pa.large_string())).cast(pa.int64())
    # Counted by word and not by row: the sum of a million repetitions needs no million lengths.
    counted = chunk.indices.value_counts()
    known = counted.filter(counted.field("values").is_valid())
    words = lengths.take(known.field("values")).cast(pa.float64())
    total = pc.sum(pc.multiply(words, known.field("counts").cast(pa.float64()))).as_py()
    return int(total or 0) + 8 * len(chunk)


def _unreadable(error: Exception) -> BadParquet:
    said = printable(" ".join(str(error).split()))[:200] or type(error).__name__
    if "checksum verification failed" in said:
        return BadParquet("damaged: the checksum of a page differs")
    return BadParquet(f"not a readable Parquet file: {said}")
