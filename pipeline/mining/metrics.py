"""What mining tells Prometheus: units as they are done, what workers do, how much is left."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping

import trackmill
from trackmill.pipeline.metrics.disk import record_disk
from trackmill.pipeline.metrics.recorder import OTHER, Recorder
from trackmill.pipeline.mining.unit import UnitResult
from trackmill.pipeline.workers.task import Status

_STATES = ("starting", "working", "waiting")


class MiningMetrics:
    """Numbers of this job, told by its driver.

    Args:
        recorder: where to.
        root: root URL of the output.
        fingerprint, proposer: of the data set.
        units, done: planned units, and those that have a receipt.
    """

    def __init__(
        self, recorder: Recorder, root: str, *, fingerprint: str, proposer: str, units: int, done: int
    ) -> None:
        self._recorder, self._root = recorder, root
        self._units, self._done = units, done
        self._seen: tuple[int, int] | None = None
        recorder.set(
            "trackmill_mining_info", 1, fingerprint=fingerprint, proposer=proposer, version=trackmill.__version__
        )
        recorder.set("trackmill_mining_running", 1)
        for name in ("started", "last_progress", "last_sign"):
            recorder.set_now(f"trackmill_mining_{name}_timestamp_seconds")
        self._tell_units()

    def unit_done(self, result: UnitResult) -> None:
        """Add a unit."""
        record = self._recorder
        for status, count in result.statuses.items():
            record.add("trackmill_mining_items_total", count, status=status)
        classes = Counter(error_class for _, error_class, _ in result.quarantined)
        # A result names some items alone.
        classes[OTHER] += result.statuses.get("quarantined", 0) - classes.total()
        for error_class, count in classes.items():
            record.add("trackmill_mining_quarantined_total", count, error_class=error_class)
        record.add("trackmill_mining_frames_total", result.frames)
        record.add("trackmill_mining_proposals_total", result.proposals)
        record.add("trackmill_mining_bytes_total", result.num_bytes)
        record.add("trackmill_mining_units_total")
        record.add("trackmill_mining_unit_seconds_total", result.seconds)
        for stage, seconds in _stages(result).items():
            record.add("trackmill_mining_worker_seconds_total", seconds, stage=stage)
        record.set_now("trackmill_mining_last_progress_timestamp_seconds")
        self._done += 1
        self._tell_units()

    def tick(self, states: Mapping[str, Status], items: int, frames: int) -> None:
        """About twice a second: what workers do, and how many items and frames are done, unfinished units included."""
        record = self._recorder
        record.set_now("trackmill_mining_last_sign_timestamp_seconds")
        if self._seen != (items, frames):
            self._seen = items, frames
            record.set_now("trackmill_mining_last_progress_timestamp_seconds")
        found = Counter(_state(status) for status in states.values())
        for state in _STATES:
            record.set("trackmill_mining_workers", found[state], state=state)

    def worker_died(self) -> None:
        """A worker died, or was lost with its machine."""
        self._recorder.add("trackmill_mining_worker_deaths_total")

    def close(self) -> None:
        """No more items are mined."""
        self._recorder.set("trackmill_mining_running", 0)
        for state in _STATES:
            self._recorder.set("trackmill_mining_workers", 0, state=state)
        self._recorder.close()

    def _tell_units(self) -> None:
        self._recorder.set("trackmill_mining_units_done", self._done)
        self._recorder.set("trackmill_mining_units_left", max(0, self._units - self._done))
        record_disk(self._recorder, self._root, "mining")


def _state(status: Status) -> str:
    if status.unit < 0:
        return "waiting" if status.stage == "idle" else "starting"
    return "working"


def _stages(result: UnitResult) -> dict[str, float]:
    """Seconds of a worker by what they were spent on."""
    times = getattr(result, "times", None)
    return {} if times is None else dataclasses.asdict(times)
