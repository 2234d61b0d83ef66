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
_SLICE_S = 1.0
_STOOD_STILL = 3.0
"""A wait that takes so many times what was asked for says that this process was stopped, or starved of its core."""


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
    patience = _Patience(seconds)
    (count,) = _COUNT.unpack(_read(link, _COUNT.size, patience))
    if count > _MOST_PARTS:
        raise TooLarge
    sizes = struct.unpack(f"<{count}Q", _read(link, 8 * count, patience))
    if max_bytes and sum(sizes) > max_bytes:
        raise TooLarge
    text, *buffers = [_read(link, size, patience) for size in sizes]
    return pickle.loads(text, buffers=buffers)


class _Patience:
    """Seconds that are left to wait. Where this process stands still for longer than it asked for (SIGSTOP, a virtual
    machine that is moved), the other side most likely stood still too, and was given no time."""

    def __init__(self, seconds: float | None) -> None:
        self._left = seconds

    def receive(self, link: socket.socket, room: memoryview) -> int:
        """Bytes that came, at least one unless the other side is gone."""
        while self._left is None or self._left > 0:
            asked = _SLICE_S if self._left is None else min(self._left, _SLICE_S)
            begin = time.monotonic()
            link.settimeout(None if self._left is None else asked)
            try:
                return link.recv_into(room)
            except TimeoutError:
                continue
            finally:
                if self._left is not None:
                    waited = time.monotonic() - begin
                    self._left -= waited if waited < _STOOD_STILL * asked else asked
        raise TimeoutError


def _read(link: socket.socket, size: int, patience: _Patience) -> memoryview:
    # `np.empty` hands out memory that nobody has filled with zeros, and that may be written to.
    room = np.empty(size, np.uint8).data
    filled = 0
    while filled < size:
        try:
            got = patience.receive(link, room[filled:])
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
