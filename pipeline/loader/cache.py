"""A local folder of remote shards, shared by all processes of a machine, never larger than its limit.

There is no index that could be damaged: a shard is cached if its file exists. A process that fetches a shard holds a
lock on its unfinished file; the lock ends with the process, and then the next process starts over.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from trackmill.pipeline.shards.tar import BadShard
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.retries import retry
from trackmill.pipeline.storage.urls import filesystem
from trackmill.schemas.config import ConfigError
from trackmill.schemas.errors import StorageError
from trackmill.schemas.receipt import ShardInfo

CHUNK_BYTES = 32 << 20
_HASHED_AT_ONCE = 4 << 20
_PART = ".part"
_POLL_S = 0.05
# Only such files are counted or removed; all others in the folder belong to the user.
_OURS = re.compile(r"^cached-[0-9a-f]{16}-.+\.tar(\.part)?$")


def check_length(url: str, shard: ShardInfo) -> None:
    """Check that storage has a shard at its full length.

    Raises:
        BadShard: the shard is missing, or its length differs from the catalog's.
        OSError: storage does not answer.
    """
    fs, path = filesystem(url)
    try:
        found = int(retry(lambda: fs.info(path), url)["size"])
    except FileNotFoundError:
        raise BadShard(f"{shard.name}: is missing") from None
    if found != shard.num_bytes:
        raise other_length(shard, found)


def other_length(shard: ShardInfo, found: int) -> BadShard:
    """The error for a shard of `found` bytes that should have more or fewer."""
    return BadShard(f"{shard.name}: has {found} bytes, not {shard.num_bytes} as recorded; mine its unit again")


def other_hash(shard: ShardInfo, found: str) -> BadShard:
    """The error for a shard of another SHA-256."""
    return BadShard(
        f"{shard.name}: is damaged: its SHA-256 is {found}, its receipt says {shard.sha256}; mine its unit again"
    )


def file_sha256(descriptor: int) -> str:
    """SHA-256 of a whole open file, wherever it stands."""
    found, offset = hashlib.sha256(), 0
    while block := os.pread(descriptor, _HASHED_AT_ONCE, offset):
        found.update(block)
        offset += len(block)
    return found.hexdigest()


class CacheFull(StorageError):
    """There is no room on the disk of the cache; the text says what to do."""


class ShardCache:
    """Whole shards in a local folder; the least recently used ones make room for new ones.

    An open file stays readable after eviction, so reading never fails, but its disk space is free only when its last
    reader has closed it.

    Args:
        folder: local path; created if it is missing.
        limit: largest size of all files in it in bytes, unfinished ones included.
        largest: size of the largest shard in bytes.

    Raises:
        ConfigError: `folder` is not a local folder, or the limit is below the largest shard.
    """

    def __init__(self, folder: str, limit: int, largest: int) -> None:
        if "://" in folder:
            raise ConfigError(f"data.cache: {redact(folder)!r} is not a local folder")
        if limit < largest:
            raise ConfigError(f"data.cache_bytes: {limit} bytes do not hold the largest shard of {largest}")
        self._folder, self._limit = Path(folder).expanduser(), limit
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"data.cache: {folder!r} cannot be made ({error.strerror})") from None

    def open(self, url: str, shard: ShardInfo, check: bool = False) -> int:
        """A file descriptor of a whole shard, which is fetched if necessary; the caller closes it.

        Args:
            url: URL of the shard.
            shard: its entry in the catalog.
            check: hash what lies in the cache already, and fetch it again where it has rotted. What is fetched is
                always hashed.

        Raises:
            BadShard: see `check_length`, or its SHA-256 is another one, twice.
            CacheFull: there is no room for it.
            OSError: the shard cannot be fetched.
        """
        path = self._path(url, shard)
        while True:
            descriptor = self._open_whole(path, shard.num_bytes)
            if descriptor is not None and check and shard.sha256 and file_sha256(descriptor) != shard.sha256:
                os.close(descriptor)
                path.unlink(missing_ok=True)
                descriptor = None
            if descriptor is None:
                descriptor = self._fetch(path, url, shard)
            if descriptor is not None:
                return descriptor

    def forget(self, url: str, shard: ShardInfo) -> None:
        """Remove a shard that turned out to be damaged; the next who opens it fetches it."""
        self._path(url, shard).unlink(missing_ok=True)

    def _path(self, url: str, shard: ShardInfo) -> Path:
        identity = hashlib.sha256(f"{url}\n{shard.num_bytes}\n{shard.sha256}".encode()).hexdigest()[:16]
        return self._folder / f"cached-{identity}-{shard.name}"

    def _open_whole(self, path: Path, size: int) -> int | None:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        if os.fstat(descriptor).st_size == size:
            with contextlib.suppress(OSError):  # records the last use; fails on files of other users
                os.utime(path)
            return descriptor
        os.close(descriptor)  # a crash of the machine can leave a shorter file under its final name
        path.unlink(missing_ok=True)
        return None

    def _fetch(self, path: Path, url: str, shard: ShardInfo) -> int | None:
        """Fetch the shard; None if another process was fetching it, and the caller must look again."""
        size = shard.num_bytes
        part = path.with_name(path.name + _PART)
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not _is(descriptor, part) or path.exists():
                # The previous holder of the lock has finished the file or given up; remove a part that is not needed.
                if _is(descriptor, part):
                    part.unlink()
                os.close(descriptor)
                return None
            check_length(url, shard)
            self._make_room(descriptor, part, size)
            found = self._copy(url, shard, descriptor)
            if shard.sha256 and found != shard.sha256:  # damaged on its way, perhaps
                found = self._copy(url, shard, descriptor)
                if found != shard.sha256:
                    raise other_hash(shard, found)
            with self._telling_of_room(shard):
                os.fsync(descriptor)
            with self._alone():  # a file that is renamed while others sum up sizes could be missed
                os.replace(part, path)
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            return descriptor
        except BaseException:
            with contextlib.suppress(OSError):
                if _is(descriptor, part):
                    part.unlink()
            os.close(descriptor)
            raise

    def _copy(self, url: str, shard: ShardInfo, descriptor: int) -> str:
        """Fetch all of a shard into an open file; returns the SHA-256 of what came."""
        found = hashlib.sha256()
        for begin in range(0, shard.num_bytes, CHUNK_BYTES):
            data = memoryview(read_bytes(url, begin, min(CHUNK_BYTES, shard.num_bytes - begin)))
            found.update(data)
            with self._telling_of_room(shard):
                while data:
                    written = os.pwrite(descriptor, data, begin)
                    data, begin = data[written:], begin + written
        return found.hexdigest()

    @contextlib.contextmanager
    def _telling_of_room(self, shard: ShardInfo) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise CacheFull(
                f"data.cache {self._folder}: no room for {shard.name} of {shard.num_bytes:,} bytes ({error.strerror}); "
                f"free some, lower data.cache_bytes ({self._limit:,}), or name a folder on another disk"
            ) from error

    def _make_room(self, descriptor: int, part: Path, size: int) -> None:
        """Reserve space for the shard: evict others, then give the unfinished file its full length."""
        while True:
            with self._alone():
                os.ftruncate(descriptor, 0)  # frees what a process that died had reserved
                files = sorted(self._files(), key=lambda entry: entry[1])
                free = self._limit - sum(length for _, _, length in files)
                for path, _, length in files:
                    if free >= size:
                        break
                    if path != part and _evict(path):
                        free += length
                if free >= size:
                    os.ftruncate(descriptor, size)
                    return
            time.sleep(_POLL_S)  # the folder is full of unfinished files of others, which can go once they are whole

    def _files(self) -> Iterator[tuple[Path, float, int]]:
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if _OURS.match(entry.name):
                        status = entry.stat()
                        yield Path(entry.path), status.st_mtime, status.st_size

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _is(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _evict(path: Path) -> bool:
    if not path.name.endswith(_PART):
        path.unlink(missing_ok=True)
        return True
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)  # its process is dead
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
