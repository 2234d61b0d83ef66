"""A remote file from its beginning to its end, by as few requests as there can be: for headers that lie all over it.

One request is answered by everything that follows; what is passed over is dropped as it arrives, so memory stays the
same whatever the size. A connection that breaks goes on where it stopped. Where the next position lies far ahead, the
bytes between are not fetched at all.
"""

from __future__ import annotations

import contextlib
import io
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from fsspec.asyn import sync

from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import ShortRead
from trackmill.pipeline.storage.retries import retry
from trackmill.pipeline.storage.urls import filesystem
from trackmill.pipeline.storage.versions import version_of
from trackmill.pipeline.storage.whole_objects import open_s3, range_header
from trackmill.schemas.errors import StorageError

SKIP_BYTES = 8 << 20
"""A gap that is read and dropped; one that is longer costs a request less time than its bytes do."""

PIECE_BYTES = 16 << 20
"""Of one read of a store that hands out ranges and no streams."""

_CHUNK = 1 << 20
_PROBE_BYTES = 64 << 10
"""What is asked for behind a gap: perhaps the next one follows."""
_KEPT_BYTES = 2 << 20
"""What stays of the bytes that were passed, for somebody who looked ahead."""


class FileChanged(StorageError):
    """The file is not as long as it was when it was opened."""


@dataclass(frozen=True, slots=True)
class RemoteVersion:
    """What a store says of a file now.

    Args:
        size: in bytes.
        mark: changes when the file is overwritten (an ETag, a time); "" where the store has no such thing.
    """

    size: int
    mark: str


def remote_version(url: str) -> RemoteVersion:
    """Ask for a remote file's size and version.

    Raises:
        FileNotFoundError, PermissionError: it is not there, or not for us.
        StorageError: the store does not answer, or does not say how long the file is.
    """
    fs, path = filesystem(url)

    def ask() -> RemoteVersion:
        fs.invalidate_cache()
        info: dict[str, Any] = fs.info(path)
        if info.get("size") is None:
            raise StorageError(f"{redact(url)}: the server does not say how long it is; download it, and mine the copy")
        return RemoteVersion(int(info["size"]), version_of(info))

    return retry(ask, url)


class ForwardFile(io.RawIOBase):
    """A remote file for reading forward; a step back of more than a little is right too, and costs a request.

    Args:
        url: the file; not one of this machine.
        size: its length in bytes.
    """

    def __init__(self, url: str, size: int) -> None:
        self._url = url
        self._size = size
        self._fs, self._path = filesystem(url)
        self._position = 0
        self._next = 0  # the first byte that has not arrived
        self._chunks: deque[tuple[int, bytes]] = deque()
        self._body: _Body | None = None
        self._jumped = False
        self._can_jump = True

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence] + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes, fewer only at the end of the file.

        Raises:
            FileChanged: see there.
            FileNotFoundError, PermissionError: it is gone.
            StorageError: nothing arrives, in several attempts.
        """
        end = self._size if size is None or size < 0 else min(self._position + size, self._size)
        if end <= self._position:
            return b""
        if not self._chunks or self._position < self._chunks[0][0]:
            behind = bool(self._chunks) or self._position < self._next
            if behind or self._position > self._next + SKIP_BYTES:
                self._jump()
        elif self._position > self._next + SKIP_BYTES:
            self._jump()
        while self._next < end:
            self._fetch()
        data = bytearray()
        for start, chunk in self._chunks:
            if start < end and start + len(chunk) > self._position:
                data += chunk[max(0, self._position - start) : end - start]
        self._position = end
        return bytes(data)

    def close(self) -> None:
        self._end_body()
        super().close()

    def _jump(self) -> None:
        if self._can_jump or self._position < self._next:
            self._end_body()
            self._chunks.clear()
            self._next, self._jumped = self._position, True

    def _fetch(self) -> None:
        """Let more bytes arrive."""

        def attempt() -> bytes | FileChanged:
            try:
                if self._body is None:
                    self._body = self._open()
                chunk = self._body.more()
                if not chunk:
                    self._end_body()
                    if not self._jumped:
                        raise ShortRead(f"{redact(self._url)}: {self._next} of {self._size} bytes arrived")
                    self._jumped = False  # the little that was asked for has come, and more is wanted
                return chunk
            except FileChanged as error:
                return error  # trying again would not mend it
            except BaseException:
                self._end_body()
                raise

        chunk = retry(attempt, self._url)
        if isinstance(chunk, FileChanged):
            raise chunk
        if chunk:
            self._chunks.append((self._next, chunk))
            self._next += len(chunk)
            while len(self._chunks) > 1 and self._chunks[1][0] <= self._position - _KEPT_BYTES:
                self._chunks.popleft()

    def _open(self) -> _Body:
        stop = min(self._size, self._next + _PROBE_BYTES) if self._jumped else self._size
        if hasattr(self._fs, "_call_s3"):
            return _S3Body(self._fs, self._path, self._url, self._next, stop, self._size)
        if hasattr(self._fs, "open_body"):
            body = _HttpBody(self._fs, self._path, self._url, self._next, stop, self._size)
            self._can_jump = self._can_jump and body.in_ranges
            return body
        return _Pieces(self._fs, self._path, self._next, stop)

    def _end_body(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            with contextlib.suppress(Exception):
                body.close()


class _Body(Protocol):
    """Bytes as they arrive."""

    def more(self) -> bytes:
        """Some of them; none at the end."""

    def close(self) -> None:
        """Nothing more is wanted."""


class _Pieces:
    """Range after range."""

    def __init__(self, fs: Any, path: str, begin: int, end: int) -> None:
        self._fs, self._path = fs, path
        self._next, self._end = begin, end

    def more(self) -> bytes:
        stop = min(self._end, self._next + PIECE_BYTES)
        if stop == self._next:
            return b""
        data: bytes = self._fs.cat_file(self._path, start=self._next, end=stop)
        self._next += len(data)
        return data

    def close(self) -> None:
        pass


class _S3Body:
    """The body of one GET."""

    def __init__(self, fs: Any, path: str, url: str, begin: int, end: int, size: int) -> None:
        self._loop = fs.loop
        asked = {} if (begin, end) == (0, size) else {"Range": range_header(begin, end, size)}
        answer = sync(self._loop, open_s3, fs, path, asked)
        self._body = answer["Body"]
        if answer["ContentLength"] != end - begin:
            self.close()
            raise _changed(url, size)

    def more(self) -> bytes:
        return bytes(sync(self._loop, self._more))

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._body.close)

    async def _more(self) -> bytearray:
        data = bytearray()
        try:
            while len(data) < _CHUNK and (part := await self._body.read(_CHUNK)):
                data += part
        except Exception:
            if not data:  # what arrived before the connection broke counts
                raise
        return data


class _HttpBody:
    """The same from a web server, which may not know ranges and then sends everything again."""

    def __init__(self, fs: Any, path: str, url: str, begin: int, end: int, size: int) -> None:
        self._loop = fs.loop
        self._left = end - begin
        self._response, self._parts, first, whole = sync(self._loop, fs.open_body, path, begin, end, size)
        self.in_ranges = begin == 0 or first == begin
        self._skipped = begin - first
        if whole is not None and whole != size:
            self.close()
            raise _changed(url, size)

    def more(self) -> bytes:
        data = bytes(sync(self._loop, self._more))[: self._left]
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._response.close)

    async def _more(self) -> bytearray:
        data = bytearray()
        parts: AsyncIterator[bytes] = self._parts
        try:
            while len(data) < min(_CHUNK, self._left) and (part := await anext(parts, b"")):
                cut = min(self._skipped, len(part))
                self._skipped -= cut
                data += part[cut:]
        except Exception:
            if not data:
                raise
        return data


def _changed(url: str, size: int) -> FileChanged:
    return FileChanged(f"{redact(url)}: it changed while it was read: it had {size} bytes before")
