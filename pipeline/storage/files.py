"""Reading files on any file system that fsspec knows, with retries and a check that nothing is missing."""

from __future__ import annotations

import os
import stat
from typing import IO, Any

from trackmill.pipeline.storage.credentials import protocol_of, redact
from trackmill.pipeline.storage.hub_errors import tell_of_reads
from trackmill.pipeline.storage.limits import MAX_BODY_BYTES, FileTooLarge
from trackmill.pipeline.storage.pipes import open_local
from trackmill.pipeline.storage.retries import retry
from trackmill.pipeline.storage.urls import filesystem, is_local
from trackmill.pipeline.storage.whole_objects import can_get_whole, get_whole, too_large
from trackmill.pipeline.storage.windows import from_window
from trackmill.schemas.errors import StorageError


class ShortRead(StorageError):
    """Fewer bytes arrived than the file has."""


def exists(url: str) -> bool:
    """Whether a file or folder is there."""
    fs, path = filesystem(url)

    def look() -> bool:
        fs.invalidate_cache()
        return bool(fs.exists(path))

    return retry(look, url)


def read_bytes(
    url: str, offset: int = -1, length: int = -1, max_bytes: int | None = None, size: int | None = None
) -> bytes:
    """Bytes of a file, all of them or a range.

    Args:
        url: the file.
        offset, length: byte range; both -1 for the whole file.
        max_bytes: refuse a file or range longer than this; None: a whole file longer than `MAX_BODY_BYTES`.
        size: of the whole file as a listing told it, which saves a question to some stores; the store is asked all the
            same where something else arrives.

    Raises:
        FileNotFoundError: no such file.
        FileTooLarge: longer than `max_bytes`.
        OSError: still failing after `ATTEMPTS` attempts (`ShortRead` when bytes were missing).
    """
    fs, path = filesystem(url)
    limit = MAX_BODY_BYTES if max_bytes is None and offset < 0 else max_bytes
    if is_local(url):
        return retry(lambda: _read_local(path, url, offset, length, limit), url)

    def read() -> bytes:
        if offset < 0:
            return _read_whole(fs, path, url, limit, size)
        if limit is not None and length > limit:
            raise too_large(url, length, limit)
        ahead = from_window(url, offset, length)
        if ahead is not None:
            return ahead
        data: bytes = fs.cat_file(path, start=offset, end=offset + length)
        if len(data) != length:
            raise ShortRead(f"{redact(url)}: {len(data)} of {length} bytes arrived")
        return data

    return retry(read, url)


def read_once(url: str, begin: int, end: int) -> bytes:
    """Bytes `begin` to `end` of a remote file in one attempt, fewer where it ends before; for `storage.windows`."""
    fs, path = filesystem(url)
    data: bytes = fs.cat_file(path, start=begin, end=end)
    return data


def _read_whole(fs: Any, path: str, url: str, limit: int | None, listed: int | None) -> bytes:
    """All bytes of a remote file. Its length is always learnt, so that a connection cut in the middle is noticed."""

    def ask() -> int | None:
        size = fs.info(path).get("size")
        return None if size is None else int(size)

    expected: int | None
    if can_get_whole(fs):
        data, expected = get_whole(fs, path, url, limit)
        expected = ask() if expected is None else expected
    else:
        expected = ask() if listed is None or (limit is not None and listed > limit) else listed
        if limit is not None and expected is not None and expected > limit:
            raise too_large(url, expected, limit)
        data = fs.cat_file(path)
        if listed is not None and len(data) != listed:
            fs.invalidate_cache()
            expected = ask()  # it may have been replaced since it was listed
    if expected is not None and len(data) != expected:
        raise ShortRead(f"{redact(url)}: {len(data)} of {expected} bytes arrived")
    return data


def _read_local(path: str, url: str, offset: int, length: int, limit: int | None) -> bytes:
    """Bytes of a file of this machine; a pipe or a device, which have no length, is read up to the limit."""
    with open_local(path) as handle:
        status = os.fstat(handle.fileno())
        has_length = stat.S_ISREG(status.st_mode)
        expected = length if offset >= 0 else status.st_size
        if limit is not None and has_length and expected > limit:
            raise too_large(url, expected, limit)
        if has_length and offset + expected > status.st_size:
            raise ShortRead(f"{redact(url)}: {max(0, status.st_size - offset)} of {expected} bytes are there")
        if offset > 0:
            handle.seek(offset)
        data = handle.read(expected if has_length or limit is None else limit + 1)
        if not has_length and limit is not None and len(data) > limit:
            raise FileTooLarge(f"{redact(url)}: more than {limit:,} bytes, the limit it is read under")
        if has_length and len(data) != expected:
            raise ShortRead(f"{redact(url)}: {len(data)} of {expected} bytes arrived")
        return data


def open_for_seeking(url: str, block_size: int = 256 * 1024) -> IO[bytes]:
    """A seekable file for reading headers: remote bytes are fetched in blocks of `block_size` as they are touched."""
    fs, path = filesystem(url)
    if is_local(url):
        return open_local(path)

    def begin() -> IO[bytes]:
        handle: IO[bytes] = fs.open(path, "rb", block_size=block_size, cache_type="blockcache")
        if protocol_of(url) == "hf":
            tell_of_reads(handle, url)
        return handle

    return retry(begin, url)
