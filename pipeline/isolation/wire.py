"""Messages between a process and its child: pickles, whose arrays travel beside them without being copied.

Only these two processes ever hold the socket, and both are ours; nothing that comes from a file is unpickled.
"""

from __future__ import annotations

import contextlib
import pickle
import socket
import struct
import time
from typing import Any

import numpy as np

_COUNT = struct.Struct("<Q")
_MOST_PARTS = 1 << 20


class Closed(Exception):
    """The other side is gone."""


class TooLarge(Exception):
    """A message of more bytes than the receiver takes."""


def send(link: socket.socket, message: Any) -> None:
    """Send one message.

    Raises:
        Closed: the other side is gone.
    """
    buffers: list[pickle.PickleBuffer] = []
    text = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(text), *(buffer.raw() for buffer in buffers)]
    sizes = [part.nbytes for part in parts]
    try:
        link.sendall(_COUNT.pack(len(parts)) + struct.pack(f"<{len(parts)}Q", *sizes))
        for part in parts:
            link.sendall(part)
    except OSError as error:
        raise Closed(str(error)) from error


def receive(link: socket.socket, *, seconds: float | None = None, max_bytes: int = 0) -> Any:
    """Wait for one message.

    Args:
        link: to the other side.
        seconds: to wait at most until the whole of it is there; None: for ever.
        max_bytes: of a message; 0: any.

    Raises:
        TimeoutError: it did not come in time.
        TooLarge: more than `max_bytes`.
        Closed: the other side is gone.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    (count,) = _COUNT.unpack(_read(link, _COUNT.size, deadline))
    if count > _MOST_PARTS:
        raise TooLarge
    sizes = struct.unpack(f"<{count}Q", _read(link, 8 * count, deadline))
    if max_bytes and sum(sizes) > max_bytes:
        raise TooLarge
    text, *buffers = [_read(link, size, deadline) for size in sizes]
    return pickle.loads(text, buffers=buffers)


def _read(link: socket.socket, size: int, deadline: float | None) -> memoryview:
    # `np.empty` hands out memory that nobody has filled with zeros, and that may be written to.
    room = np.empty(size, np.uint8).data
    filled = 0
    while filled < size:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        try:
            link.settimeout(left)
            got = link.recv_into(room[filled:])
        except TimeoutError:
            raise
        except OSError as error:
            raise Closed(str(error)) from error
        if not got:
            raise Closed("closed")
        filled += got
    with contextlib.suppress(OSError):
        link.settimeout(None)
    return room
