"""How far the making of a sidecar is."""

from __future__ import annotations

from typing import TextIO

from trackmill.pipeline.sidecars.part_work import PartResult
from trackmill.pipeline.sidecars.run import Making
from trackmill.pipeline.workers.progress import WorkProgress


class SidecarProgress(WorkProgress):
    """Counts samples and tells it; see `WorkProgress`.

    Args:
        making: what is to be made.
        stream: where to; a bar if it is a terminal.
    """

    things = "samples"

    def __init__(self, making: Making, stream: TextIO | None = None) -> None:
        self.doing = f"making {making.name}"
        todo = sum(len(unit.items) for unit in making.todo)
        again = making.only_quarantined
        super().__init__(
            todo if again else making.samples,
            making.frames - making.frames_there if again else making.frames,
            done_items=0 if again else making.samples - todo,
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
