"""Opening files of this machine for reading, where a name may be a pipe that nobody writes to."""

from __future__ import annotations

import errno
import os
import select
import stat
from typing import IO

from trackmill.schemas.errors import InputError

WAIT_S = 10.0
"""How long a named pipe may stay empty. Where a shell hands a pipe over (`<(command)`), any time is right."""

_HANDED_OVER = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")


def open_local(path: str) -> IO[bytes]:
    """A file, or a pipe that has something to say.

    Raises:
        InputError: a named pipe into which nobody writes; plain `open` would wait for that without end.
        FileNotFoundError: as of `open`, or a link that leads back to itself: there is no file, now or later.
        OSError: as of `open`.
    """
    try:
        is_pipe = not path.startswith(_HANDED_OVER) and stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise FileNotFoundError(f"{path}: a link that leads back to itself") from None
    if not is_pipe:
        return open(path, "rb")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        if not waiting.poll(WAIT_S * 1000):
            raise InputError(f"{path}: is no file but a pipe, into which nobody has written for {WAIT_S:g} s")
        os.set_blocking(descriptor, True)
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
