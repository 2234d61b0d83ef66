"""What the workers of a run have in hand, and whom a death would be charged to.

An item that was in hand at two deaths is quarantined, which is right, and would make the bytes differ. So a victim is
stopped, its note is read, and it is killed unless an item in its hands was in hand at a death before.
"""

from __future__ import annotations

import os
from pathlib import Path

from trackmill.pipeline.workers.inflight import InFlight, peek_note


def notes(tmp: Path) -> dict[int, Path]:
    """In-flight notes below a temporary folder, by the process that writes them."""
    return {
        int(path.name.split("~")[1]): path for path in (tmp / f"trackmill-{os.getuid()}").glob(".tmp-*-in-hand.part")
    }


class Charges:
    """Items that a death was charged to since the driver began, by unit and position."""

    def __init__(self) -> None:
        self._charged: set[tuple[int, int]] = set()

    def allows(self, held: InFlight | None) -> bool:
        """Whether nothing in hand was charged before."""
        return held is None or not any((held.unit, position) in self._charged for position in held.positions)

    def charge(self, held: InFlight | None, unit_items: int = 0) -> int:
        """Note a death.

        Args:
            held: what was in hand.
            unit_items: items of a unit, where it is not known which of them will be in hand in the end.

        Returns:
            Items that were begun and have to be done again.
        """
        if held is None:
            return 0
        positions = range(unit_items) if unit_items else held.positions
        self._charged |= {(held.unit, position) for position in positions}
        return max(held.positions) + 1

    def forget(self) -> None:
        """Another driver knows nothing of what went before."""
        self._charged.clear()


def held_by(pid: int, tmp: Path) -> InFlight | None:
    """What a process has in hand."""
    path = notes(tmp).get(pid)
    return peek_note(str(path)) if path else None
