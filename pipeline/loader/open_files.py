"""Open shards of one process: never more than the process may have, the longest unused is closed first.

A window of small shards spans thousands of them, and 1,024 descriptors are what a process usually has for everything.
"""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Callable, Container

from trackmill.schemas.errors import StorageError

MOST = 256
"""More are of no use: opening a file takes microseconds, decoding a sample a millisecond."""


def most_open_files() -> int:
    """How many descriptors shards may take: a quarter of what the process may have, 256 at most, 4 at least."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else max(4, min(MOST, soft // 4))


class OpenFiles:
    """Descriptors by number, from any thread.

    Args:
        most: so many are open at once; 0: `most_open_files`.
    """

    def __init__(self, most: int = 0) -> None:
        self._most = most or most_open_files()
        self._open: OrderedDict[int, int] = OrderedDict()
        # Held while a descriptor is read from: another thread that closed it would hand its number to another file.
        self._lock = threading.Lock()

    def __contains__(self, number: int) -> bool:
        return number in self._open

    def read(self, number: int, size: int, offset: int) -> bytes | None:
        """Bytes of a file, fewer at its end; None where it is not open.

        Raises:
            OSError: the disk cannot read.
        """
        with self._lock:
            descriptor = self._open.get(number)
            if descriptor is None:
                return None
            self._open.move_to_end(number)
            return os.pread(descriptor, size, offset)

    def open(self, number: int, opener: Callable[[], int]) -> None:
        """Take what `opener` opens under a number; others are closed to make room, also in the whole process.

        Raises:
            StorageError: no descriptor is left in the process, though none is held here.
            OSError, BadShard: what `opener` raises.
        """
        while True:
            try:
                descriptor = opener()
                break
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                if not self._shrink(len(self._open) // 2):
                    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
                    raise StorageError(
                        f"no file can be opened any more, this process may have {soft}: raise it (ulimit -n 65536), or "
                        "use fewer data.workers"
                    ) from None
        with self._lock:
            before = self._open.pop(number, None)
            self._open[number] = descriptor
        if before is not None:
            os.close(before)
        self._shrink(self._most)

    def close(self, number: int) -> None:
        """Close one; nothing happens where it is not open."""
        with self._lock:
            descriptor = self._open.pop(number, None)
        if descriptor is not None:
            os.close(descriptor)

    def close_all_but(self, wanted: Container[int]) -> None:
        """Close what nobody wants any more."""
        for number in [number for number in list(self._open) if number not in wanted]:
            self.close(number)

    def _shrink(self, most: int) -> bool:
        """Close the longest unused; whether any was closed."""
        with self._lock:
            closing = [self._open.popitem(last=False)[1] for _ in range(len(self._open) - most)]
        for descriptor in closing:
            os.close(descriptor)
        return bool(closing)
