"""What the workers of a run have in hand, and whom a death would be charged to.

An item that was in hand at two deaths is quarantined, which is right, and would make the bytes differ. So a victim is
stopped, its note is read, and it is killed unless an item in its hands was in hand at a death before.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from trackmill.pipeline.workers.inflight import InFlight, peek_note


def notes(tmp: Path) -> dict[int, Path]:
    """In-flight notes below a temporary folder, by the process that writes them."""
    folder = tmp / f"trackmill-{os.getuid()}"
    return {int(path.name.split("~")[1]): path for path in folder.glob(".tmp-*-in-hand.part")}


def held_by(pid: int, tmp: Path) -> tuple[InFlight, ...]:
    """What a process has in hand, unit by unit."""
    path = notes(tmp).get(pid)
    return peek_note(str(path)) if path else ()


def begun(held: Iterable[InFlight], unit_items: int) -> int:
    """Items that were begun, and are done again by whoever gets the units next."""
    return sum(unit_items if each.publishing else max(each.positions, default=-1) + 1 for each in held)


class Charges:
    """Items that a death was charged to since the driver began, by unit and position."""

    def __init__(self) -> None:
        self._charged: set[tuple[int, int]] = set()

    def allows(self, held: Iterable[InFlight]) -> bool:
        """Whether nothing in hand was charged before."""
        return not any((each.unit, position) in self._charged for each in held for position in each.positions)

    def charge(self, held: Iterable[InFlight], unit_items: int = 0) -> None:
        """Note a death.

        Args:
            held: what was in hand.
            unit_items: items of a unit, where it is not known which of them will be in hand in the end.
        """
        for each in held:
            positions = range(unit_items) if unit_items else each.positions
            self._charged |= {(each.unit, position) for position in positions}

    def forget(self) -> None:
        """Another driver knows nothing of what went before."""
        self._charged.clear()
