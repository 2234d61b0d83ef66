"""Which item a worker had in its hands when it died.

A worker notes the items it reads and works on in a small file on its own machine (2 microseconds a note).
The file survives the worker, so a death is charged to the item that caused it and to no other; when the whole machine
is gone the file is gone too, and then no item is to blame.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from dataclasses import dataclass

from trackmill.pipeline.storage.scratch import scratch_folder, scratch_path

_NOTHING = -1
HANDS = 8
"""Items that can be in hand at once: read ahead, worked on, waiting to be written."""
_RECORD = struct.Struct(f"<{2 + HANDS}q")


@dataclass(frozen=True, slots=True)
class InFlight:
    """What a worker has in hand.

    Args:
        unit: its number.
        positions: of the items inside the unit.
        overdue: the one of them that takes too long, for which the worker ends itself; None if it does not.
    """

    unit: int
    positions: frozenset[int]
    overdue: int | None = None


class InFlightNote:
    """The writing side, one per worker; its threads share it."""

    def __init__(self) -> None:
        self.path = str(scratch_path(str(scratch_folder() / "in-hand")))
        self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._lock = threading.Lock()
        self._unit = _NOTHING
        self._positions: set[int] = set()
        self._overdue = _NOTHING
        self._write()

    def begin(self, unit: int) -> None:
        """A unit starts."""
        with self._lock:
            self._unit = unit
            self._positions.clear()
            self._write()

    def take(self, position: int) -> None:
        """An item is taken in hand: it is being read, worked on or written."""
        with self._lock:
            self._positions.add(position)
            assert len(self._positions) <= HANDS, "more items in hand than the note has room for"
            self._write()

    def put(self, position: int) -> None:
        """An item is out of hand."""
        with self._lock:
            self._positions.discard(position)
            self._write()

    def blame(self, position: int) -> None:
        """An item takes too long: the worker is about to end itself because of it."""
        with self._lock:
            self._overdue = position
            self._write()

    def end(self) -> None:
        """Nothing is in hand."""
        self.begin(_NOTHING)

    def _write(self) -> None:
        positions = [*sorted(self._positions), *[_NOTHING] * HANDS][:HANDS]
        os.pwrite(self._handle, _RECORD.pack(self._unit, self._overdue, *positions), 0)

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
            unit, overdue, *hands = _RECORD.unpack(handle.read(_RECORD.size))
    except (OSError, struct.error):
        return None
    positions = frozenset(position for position in hands if position != _NOTHING)
    if unit == _NOTHING or not positions:
        return None
    return InFlight(unit, positions, overdue if overdue in positions else None)
