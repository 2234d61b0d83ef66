"""What training tells Prometheus: the numbers of the newest step, evaluation and checkpoint, by rank 0."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import trackmill
from trackmill.pipeline.metrics.disk import record_disk
from trackmill.pipeline.metrics.recorder import Recorder
from trackmill.pipeline.training.telemetry.tags import tag

_GAUGES = {
    "epoch": "trackmill_training_epoch",
    "lr": "trackmill_training_learning_rate",
    "grad_norm": "trackmill_training_gradient_norm",
    "samples_per_s": "trackmill_training_samples_per_second",
    "data_wait": "trackmill_training_loader_wait_ratio",
    "memory_bytes": "trackmill_training_memory_bytes",
    "bad_samples": "trackmill_training_bad_samples",
}
"""Metrics of numbers that every run has."""


class TrainingMetrics:
    """Numbers of a run.

    Args:
        recorder: where to.
        output: root URL of the run.
        recipe, task: what is trained, for the info metric.
        total_steps, start_step: of the whole run, and steps done before.
        samples_per_step, ranks: over all ranks; their number.
    """

    def __init__(
        self,
        recorder: Recorder,
        output: str,
        *,
        recipe: str,
        task: str,
        total_steps: int,
        start_step: int,
        samples_per_step: int,
        ranks: int,
    ) -> None:
        self._recorder, self._output, self._samples = recorder, output, samples_per_step
        recorder.set("trackmill_training_info", 1, recipe=recipe, task=task, version=trackmill.__version__)
        recorder.set("trackmill_training_running", 1)
        recorder.set("trackmill_training_ranks", ranks)
        recorder.set("trackmill_training_steps_planned", total_steps)
        recorder.set("trackmill_training_step", start_step)
        for name in ("started", "last_progress"):
            recorder.set_now(f"trackmill_training_{name}_timestamp_seconds")
        record_disk(recorder, output, "training")

    def tick(self, step: int) -> None:
        """A step is done; its numbers follow later."""
        self._recorder.set("trackmill_training_step", step)
        self._recorder.set_now("trackmill_training_last_progress_timestamp_seconds")

    def steps(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Numbers of finished steps, in order; gauges show those of the last."""
        record, newest = self._recorder, rows[-1]
        skipped = sum(not all(math.isfinite(row.get(name, 0)) for name in ("loss", "grad_norm")) for row in rows)
        record.add("trackmill_training_skipped_steps_total", skipped)
        for name, value in newest.items():
            if name in _GAUGES:
                record.set(_GAUGES[name], value)
            elif tag(name).startswith("loss/"):
                record.set("trackmill_training_loss", value, part=tag(name).removeprefix("loss/"))
            elif name != "step":
                record.set("trackmill_training_number", value, name=name)
        if newest.get("samples_per_s"):
            record.set("trackmill_training_step_seconds", self._samples / newest["samples_per_s"])

    def evaluation(self, values: Mapping[str, float]) -> None:
        """Results of an evaluation."""
        for name, value in values.items():
            self._recorder.set("trackmill_training_evaluation", value, metric=name)
        self._recorder.set_now("trackmill_training_last_progress_timestamp_seconds")

    def checkpoint(self, step: int, seconds: float, num_bytes: int) -> None:
        """A checkpoint was written."""
        record = self._recorder
        record.set("trackmill_training_checkpoint_step", step)
        record.set_now("trackmill_training_checkpoint_timestamp_seconds")
        record.set("trackmill_training_checkpoint_seconds", seconds)
        record.set("trackmill_training_checkpoint_bytes", num_bytes)
        record.set_now("trackmill_training_last_progress_timestamp_seconds")
        record_disk(record, self._output, "training")

    def close(self) -> None:
        """The run has ended in good order."""
        self._recorder.set("trackmill_training_running", 0)
        self._recorder.close()
