"""Which item a worker had in its hands when it died.

A worker notes the item it reads and the item it works on in a small file on its own machine (2 microseconds a note).
The file survives the worker, so a death is charged to the item that caused it and to no other; when the whole machine
is gone the file is gone too, and then no item is to blame.
"""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
import threading
from dataclasses import dataclass

_RECORD = struct.Struct("<qqq")
_NOTHING = -1


@dataclass(frozen=True, slots=True)
class InFlight:
    """Positions inside `unit` of the items in hand."""

    unit: int
    positions: frozenset[int]


class InFlightNote:
    """The writing side, one per worker; the reading thread and the working thread share it."""

    def __init__(self) -> None:
        self._handle, self.path = tempfile.mkstemp(prefix=f"trackmill-inflight-{os.getpid()}-")
        self._lock = threading.Lock()
        self._unit = self._reading = self._working = _NOTHING
        self._note()

    def begin(self, unit: int) -> None:
        """A unit starts."""
        self._note(unit=unit, reading=_NOTHING, working=_NOTHING)

    def reading(self, position: int | None) -> None:
        """An item is being read, perhaps ahead of the one being worked on; None: reading is over."""
        self._note(reading=_NOTHING if position is None else position)

    def working(self, position: int | None) -> None:
        """An item is being worked on; None: work on it is over."""
        self._note(working=_NOTHING if position is None else position)

    def end(self) -> None:
        """Nothing is in hand."""
        self._note(unit=_NOTHING, reading=_NOTHING, working=_NOTHING)

    def _note(self, unit: int | None = None, reading: int | None = None, working: int | None = None) -> None:
        with self._lock:
            self._unit = self._unit if unit is None else unit
            self._reading = self._reading if reading is None else reading
            self._working = self._working if working is None else working
            os.pwrite(self._handle, _RECORD.pack(self._unit, self._reading, self._working), 0)

    def remove(self) -> None:
        """The worker ends in good order."""
        os.close(self._handle)
        os.unlink(self.path)


def read_note(path: str) -> InFlight | None:
    """What a dead worker left on this machine, and remove it; None when there is no note or nothing was in hand."""
    note = peek_note(path)
    with contextlib.suppress(OSError):
        os.unlink(path)
    return note


def peek_note(path: str) -> InFlight | None:
    """What a worker has in hand; None when there is no note or nothing is in hand."""
    try:
        with open(path, "rb") as handle:
            unit, reading, working = _RECORD.unpack(handle.read(_RECORD.size))
    except (OSError, struct.error):
        return None
    positions = frozenset(position for position in (reading, working) if position != _NOTHING)
    return InFlight(unit, positions) if unit != _NOTHING and positions else None
