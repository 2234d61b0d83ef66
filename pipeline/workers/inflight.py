"""Which items a worker had in its hands when it died.

A worker notes the items it reads and works on in a small file on its own machine (some microseconds a note), and the
units that it is publishing. The file survives the worker, so a death is charged to the item that caused it and to
no other; when the whole machine is gone the file is gone too, and then no item is to blame.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import threading
from dataclasses import dataclass

from trackmill.pipeline.storage.scratch import scratch_folder, scratch_path

_NOTHING = -1
HANDS = 16
"""Items that can be in hand at once: read ahead, worked on, waiting to be written; of one unit and of the next."""
_UNITS = 2
"""Units that can be published at once."""
_RECORD = struct.Struct(f"<{2 + _UNITS + 2 * HANDS}q")


@dataclass(frozen=True, slots=True)
class InFlight:
    """What a worker has in hand of one unit.

    Args:
        unit: its number.
        positions: of the items inside the unit.
        overdue: the one of them that takes too long, for which the worker ends itself; None if it does not.
        publishing: no item is to blame: all are done and the unit's files are being published, or the device failed.
    """

    unit: int
    positions: frozenset[int]
    overdue: int | None = None
    publishing: bool = False


class InFlightNote:
    """The writing side, one per worker; its threads share it."""

    def __init__(self) -> None:
        self.path = str(scratch_path(str(scratch_folder() / "in-hand")))
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.pwrite(handle, bytes(_RECORD.size), 0)
        # Memory that is the file: a note costs no call of the system, in which another thread would get its turn while
        # the model waits. What stands in it outlives the process, as what was written would.
        self._map: mmap.mmap | None = mmap.mmap(handle, _RECORD.size)
        os.close(handle)
        self._lock = threading.Lock()
        self._hands: set[tuple[int, int]] = set()
        self._publishing: set[int] = set()
        self._overdue = (_NOTHING, _NOTHING)
        self._write()

    def take(self, unit: int, position: int) -> None:
        """An item of a unit is taken in hand: it is being read, worked on or written."""
        with self._lock:
            self._hands.add((unit, position))
            assert len(self._hands) <= HANDS, "more items in hand than the note has room for"
            self._write()

    def put(self, unit: int, position: int) -> None:
        """An item is out of hand."""
        with self._lock:
            self._hands.discard((unit, position))
            self._write()

    def publish(self, unit: int) -> None:
        """A unit is being published, or else should not be charged to one of its items."""
        with self._lock:
            self._publishing.add(unit)
            assert len(self._publishing) <= _UNITS, "more units are published than the note has room for"
            self._write()

    def blame(self, unit: int, position: int) -> None:
        """An item takes too long: the worker is about to end itself because of it."""
        with self._lock:
            self._overdue = unit, position
            self._write()

    def end(self, unit: int) -> None:
        """Nothing of a unit is in hand any more."""
        with self._lock:
            self._hands = {hand for hand in self._hands if hand[0] != unit}
            self._publishing.discard(unit)
            self._write()

    def _write(self) -> None:
        if self._map is None:
            return  # a thread that outlives its worker
        units = [*sorted(self._publishing), *[_NOTHING] * _UNITS][:_UNITS]
        hands = [number for hand in sorted(self._hands) for number in hand]
        hands = [*hands, *[_NOTHING] * 2 * HANDS][: 2 * HANDS]
        self._map[:] = _RECORD.pack(*self._overdue, *units, *hands)

    def remove(self) -> None:
        """The worker ends in good order."""
        with self._lock:
            if self._map is not None:
                self._map.close()
            self._map = None
        os.unlink(self.path)


def read_note(path: str) -> tuple[InFlight, ...]:
    """What a dead worker left on this machine, and remove it; nothing when there is no note or nothing was in hand."""
    note = peek_note(path)
    with contextlib.suppress(OSError):
        os.unlink(path)
    return note


def peek_note(path: str) -> tuple[InFlight, ...]:
    """What a worker has in hand, unit by unit; nothing when there is no note or nothing is in hand."""
    try:
        with open(path, "rb") as handle:
            overdue_unit, overdue, *numbers = _RECORD.unpack(handle.read(_RECORD.size))
    except (OSError, struct.error):
        return ()
    publishing = {unit for unit in numbers[:_UNITS] if unit != _NOTHING}
    positions: dict[int, set[int]] = {unit: set() for unit in publishing}
    for unit, position in zip(numbers[_UNITS::2], numbers[_UNITS + 1 :: 2]):
        if unit != _NOTHING:
            positions.setdefault(unit, set()).add(position)
    return tuple(
        InFlight(
            unit,
            frozenset(own),
            overdue if unit == overdue_unit and overdue in own else None,
            unit in publishing,
        )
        for unit, own in sorted(positions.items())
    )
