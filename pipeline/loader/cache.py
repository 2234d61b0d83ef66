"""A local folder of remote shards, shared by all processes of a machine, never larger than its limit.

There is no index that could be damaged: a shard is there when its file is. Who fetches a shard holds a lock on its
unfinished file; the lock ends with the process, however that ends, and the next one begins anew.
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
# Nothing else in the folder is ever counted or removed, whatever people keep there.
_OURS = re.compile(r"^cached-[0-9a-f]{16}-.+\.tar(\.part)?$")


def check_length(url: str, shard: ShardInfo) -> None:
    """Ask storage whether a shard is there and whole.

    Raises:
        BadShard: missing, or of another length than the catalog says.
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
    """Whole shards in a local folder; the longest unused ones make room for new ones.

    A file that is open stays readable when it is evicted, so reading never fails, but its bytes are free only when
    its last reader has closed it.

    Args:
        folder: local path; made where it is missing.
        limit: bytes of all files in it, unfinished ones included.
        largest: bytes of the largest shard that will be asked for.

    Raises:
        ConfigError: not a local folder, or the limit is below the largest shard.
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
        """A file descriptor of a whole shard, fetched if need be; the caller closes it.

        Args:
            url: of the shard.
            shard: what the catalog says.

        Raises:
            BadShard: see `check_length`.
            OSError: it could not be fetched.
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
            with contextlib.suppress(OSError):  # its time is when it was last used; someone else's file may refuse
                os.utime(path)
            return descriptor
        os.close(descriptor)  # a crash of the machine can leave a shorter file under a good name
        path.unlink(missing_ok=True)
        return None

    def _fetch(self, path: Path, url: str, shard: ShardInfo) -> int | None:
        """The shard, or None where another process had it in hand: look again."""
        size = shard.num_bytes
        part = path.with_name(path.name + _PART)
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not _is(descriptor, part) or path.exists():
                # Whoever had the lock before has finished the file or given up; a part that nobody needs goes away.
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
            with self._alone():  # a file that changes its name while others count could be missed
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
        """Take the shard's bytes for this process: its unfinished file gets its full length at once."""
        while True:
            with self._alone():
                os.ftruncate(descriptor, 0)  # whoever began it before, and died, had taken its bytes
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
            time.sleep(_POLL_S)  # others are fetching what fills the folder; their shards can go once they are there

    def _files(self) -> Iterator[tuple[Path, float, int]]:
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if _OURS.match(entry.name):
                        found = entry.stat()
                        yield Path(entry.path), found.st_mtime, found.st_size

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
