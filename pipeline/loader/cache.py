"""A local folder of remote shards, shared by all processes of a machine, never larger than its limit.

There is no index that could be damaged: a shard is cached if its file exists. A process that fetches a shard holds a
lock on its unfinished file; the lock ends with the process, and then the next process starts over.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from trackmill.pipeline.shards.tar import BadShard
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import filesystem, read_bytes, retry
from trackmill.schemas.config import ConfigError
from trackmill.schemas.receipt import ShardInfo

CHUNK_BYTES = 32 << 20
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

    def open(self, url: str, shard: ShardInfo) -> int:
        """A file descriptor of a whole shard, which is fetched if necessary; the caller closes it.

        Args:
            url: URL of the shard.
            shard: its entry in the catalog.

        Raises:
            BadShard: see `check_length`.
            OSError: the shard cannot be fetched.
        """
        identity = hashlib.sha256(f"{url}\n{shard.num_bytes}\n{shard.sha256}".encode()).hexdigest()[:16]
        path = self._folder / f"cached-{identity}-{shard.name}"
        while True:
            descriptor = self._open_whole(path, shard.num_bytes)
            if descriptor is None:
                descriptor = self._fetch(path, url, shard)
            if descriptor is not None:
                return descriptor

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
            for begin in range(0, size, CHUNK_BYTES):
                data = memoryview(read_bytes(url, begin, min(CHUNK_BYTES, size - begin)))
                while data:
                    written = os.pwrite(descriptor, data, begin)
                    data, begin = data[written:], begin + written
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
