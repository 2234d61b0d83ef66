"""How far the making of a sidecar is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from trackmill.pipeline.sidecars.part_work import PartResult, PartUnit
from trackmill.pipeline.sidecars.prepare import Making
from trackmill.pipeline.workers.progress import WorkProgress


class SidecarProgress(WorkProgress):
    """Counts samples and tells it; see `WorkProgress`.

    Args:
        making: what is to be made.
        stream: where to; a bar if it is a terminal.
        own: the share of this process, if others do the rest.
    """

    things = "samples"

    def __init__(self, making: Making, stream: TextIO | None = None, own: Sequence[PartUnit] | None = None) -> None:
        self.doing = f"making {making.name}"
        units = making.todo if own is None else own
        samples, frames = sum(len(unit.items) for unit in units), sum(unit.frames for unit in units)
        again = making.only_quarantined or own is not None
        super().__init__(
            samples if again else making.samples,
            frames if again else making.frames,
            done_items=0 if again else making.samples - samples,
            done_frames=0 if again else making.frames_there,
            quarantined=0 if again else making.quarantined_elsewhere(),
            interval_s=making.settings.progress_s,
            watchdog_s=making.settings.watchdog_s,
            stream=stream,
        )
        self._frames_of = {unit.unit: unit.frames for unit in making.todo}

    def part_done(self, result: PartResult) -> None:
        """A part is made, or could not be."""
        self.add(result.unit, result.samples, self._frames_of[result.unit], result.num_quarantined)
