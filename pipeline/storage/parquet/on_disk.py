"""A Parquet file that is read a row group at a time: its rows need not fit into memory, nor need its bytes.

What `reading` does for a whole file holds for each row group: the memory that it will take is known before a row of it
is decoded. A file in a store is fetched to this machine first, once.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Mapping
from typing import IO

from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import ShortRead, read_bytes
from trackmill.pipeline.storage.limits import FileTooLarge
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.parquet.checksum import ChecksumMismatch, check_stored_checksum
from trackmill.pipeline.storage.parquet.pages import chunk_place
from trackmill.pipeline.storage.parquet.reading import (
    MAX_TABLE_FILE_BYTES,
    MEMORY_FLOOR,
    BadParquet,
    RowGroup,
    memory_limit,
    read_footer,
)
from trackmill.pipeline.storage.pipes import open_local
from trackmill.pipeline.storage.scratch import scratch_folder
from trackmill.pipeline.storage.urls import filesystem, is_local

_BLOCK = 32 << 20


class StoredTable:
    """A Parquet file on disk, held open.

    Args:
        url: where it is.
        max_bytes: refuse a longer file.
        floor: what each row group may take in memory even if it is small, see `MEMORY_FLOOR`.

    Raises:
        FileNotFoundError: there is no such file.
        FileTooLarge: longer than `max_bytes`.
        BadParquet: no Parquet, or damaged; the text does not name the file.
        OSError: storage failed for good.
    """

    def __init__(self, url: str, max_bytes: int = MAX_TABLE_FILE_BYTES, floor: int = MEMORY_FLOOR) -> None:
        self._handle: IO[bytes] = open_local(filesystem(url)[1]) if is_local(url) else _fetched(url, max_bytes)
        self._lock = threading.Lock()
        self._floor = floor
        try:
            self.num_bytes = os.fstat(self._handle.fileno()).st_size
            if self.num_bytes > max_bytes:
                raise FileTooLarge(f"{redact(url)}: {self.num_bytes} bytes, more than the limit of {max_bytes}")
            self._footer = read_footer(self._handle, self.num_bytes)
            try:
                check_stored_checksum(self._handle, self.num_bytes)
            except ChecksumMismatch as error:
                raise BadParquet(f"damaged: {error}") from None
        except BaseException:
            self._handle.close()
            raise

    @property
    def metadata(self) -> Mapping[bytes, bytes]:
        """What is written down beside the table, by key."""
        return self._footer.metadata or {}

    @property
    def group_rows(self) -> list[int]:
        """Rows of each row group."""
        return [self._footer.row_group(number).num_rows for number in range(self._footer.num_row_groups)]

    def group(self, number: int) -> RowGroup:
        """One row group, its bytes in memory and not decoded; from any thread.

        Raises:
            BadParquet: it lies outside of the file.
            ShortRead: the file became shorter.
        """
        group = self._footer.row_group(number)
        places = [chunk_place(group.column(column)) for column in range(group.num_columns)]
        begin, end = min((a for a, _ in places), default=0), max((b for _, b in places), default=0)
        if not 0 <= begin <= end <= self.num_bytes:
            raise BadParquet(f"damaged: row group {number} lies at bytes {begin} to {end} of {self.num_bytes}")
        with self._lock:
            self._handle.seek(begin)
            data = self._handle.read(end - begin)
        if len(data) != end - begin:
            raise ShortRead("a table became shorter while it was read")
        return RowGroup(self._footer, range(number, number + 1), data, begin, memory_limit(len(data), self._floor))

    def close(self) -> None:
        """Close the file."""
        self._handle.close()


def _fetched(url: str, max_bytes: int) -> IO[bytes]:
    """A copy of a remote file that nobody else sees, and that is gone once it is closed."""
    size = list_files(url, sizes=True)[0].size
    if size > max_bytes:
        raise FileTooLarge(f"{redact(url)}: {size} bytes, more than the limit of {max_bytes}")
    copy = tempfile.TemporaryFile(dir=scratch_folder())  # noqa: SIM115 - who asked for it closes it
    try:
        for begin in range(0, size, _BLOCK):
            copy.write(read_bytes(url, begin, min(_BLOCK, size - begin)))
        copy.flush()
        return copy
    except BaseException:
        copy.close()
        raise
