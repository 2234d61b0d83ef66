"""A part of a file as a file of its own: a member of a tar, read in place."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast

from trackmill.pipeline.storage.files import open_for_seeking

if TYPE_CHECKING:
    from typing_extensions import Buffer  # of Python 3.12


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of something lie.

    Args:
        uri: the file.
        offset, length: range in it; -1, -1 for the whole file.
        member: what the range is called, of a file that holds many.
    """

    uri: str
    offset: int = -1
    length: int = -1
    member: str = ""

    @property
    def name(self) -> str:
        """For people: the URI, and `#member` for a part of it."""
        return f"{self.uri}#{self.member}" if self.member else self.uri


def open_place(place: Place, block_size: int = 256 * 1024) -> IO[bytes]:
    """A seekable file that begins and ends where the place does; see `open_for_seeking`.

    Raises:
        OSError: could not be fetched.
    """
    handle = open_for_seeking(place.uri, block_size)
    if place.offset < 0:
        return handle
    return cast(IO[bytes], io.BufferedReader(_Part(handle, place.offset, place.length), block_size))


class _Part(io.RawIOBase):
    """`length` bytes of an open file from `offset` on; closing it closes the file."""

    def __init__(self, handle: IO[bytes], offset: int, length: int) -> None:
        self._handle = handle
        self._offset = offset
        self._length = length
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        if base + offset < 0:
            raise ValueError(f"seek to {base + offset}, before the beginning")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._length - self._position))
        if not wanted:
            return 0
        self._handle.seek(self._offset + self._position)
        data = self._handle.read(wanted)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._handle.close()
        super().close()
