"""Every metric that mining and training export: the one place that knows names, kinds and labels.

Dashboards and alerts (`infra/grafana`, `infra/prometheus`) are tested against it. Each metric also has the label `run`,
the last part of the output's URL. Labels are few and bounded: never an item, a file or a process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MOST_VALUES = 30
"""Values that a label may take; what comes later is counted under `other`."""
RUN = "run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric.

    Args:
        name: with its unit; counters end in `_total`.
        kind: a counter only grows; a gauge is set.
        help: one sentence.
        labels: beside `run`.
    """

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...] = ()


def _counter(name: str, help: str, *labels: str) -> Metric:
    return Metric(name=name, kind="counter", help=help, labels=labels)


def _gauge(name: str, help: str, *labels: str) -> Metric:
    return Metric(name=name, kind="gauge", help=help, labels=labels)


MINING = (
    _counter("trackmill_mining_items_total", "Items mined, by what became of them.", "status"),
    _counter("trackmill_mining_quarantined_total", "Quarantined items, by class of the error.", "error_class"),
    _counter("trackmill_mining_frames_total", "Frames mined."),
    _counter("trackmill_mining_proposals_total", "Regions proposed."),
    _counter("trackmill_mining_bytes_total", "Bytes of shards written."),
    _counter("trackmill_mining_units_total", "Units finished by this process."),
    _counter("trackmill_mining_unit_seconds_total", "Seconds that finished units took, from first item to receipt."),
    _counter(
        "trackmill_mining_worker_seconds_total",
        "Seconds of workers, by what they were spent on: model, reading, writing, publishing, waiting.",
        "stage",
    ),
    _counter("trackmill_mining_worker_deaths_total", "Workers that died or were lost with their machine."),
    _gauge("trackmill_mining_workers", "Workers, by what they do: starting, working, waiting.", "state"),
    _gauge("trackmill_mining_units_done", "Units with a receipt, those of earlier runs included."),
    _gauge("trackmill_mining_units_left", "Planned units without a receipt."),
    _gauge("trackmill_mining_running", "1 while the job runs, 0 once it has ended in good order."),
    _gauge("trackmill_mining_started_timestamp_seconds", "When this process began to mine, in Unix time."),
    _gauge("trackmill_mining_last_progress_timestamp_seconds", "When an item was last finished, in Unix time."),
    _gauge("trackmill_mining_last_sign_timestamp_seconds", "When the driver last looked at its workers, in Unix time."),
    _gauge("trackmill_mining_output_free_bytes", "Free space where the output lies; only of a local one."),
    _gauge("trackmill_mining_output_size_bytes", "Size of the disk where the output lies; only of a local one."),
    _gauge("trackmill_mining_info", "1; what is mined.", "fingerprint", "proposer", "version"),
)
"""Of `trackmill mine`."""

TRAINING = (
    _gauge("trackmill_training_step", "Optimiser steps done."),
    _gauge("trackmill_training_steps_planned", "Optimiser steps of the whole run."),
    _gauge("trackmill_training_epoch", "Passes over the data set."),
    _gauge("trackmill_training_loss", "Loss of the newest step over all ranks, by part; total is their sum.", "part"),
    _gauge("trackmill_training_number", "Other numbers of the newest step, by name.", "name"),
    _gauge("trackmill_training_learning_rate", "Learning rate of the newest step."),
    _gauge("trackmill_training_gradient_norm", "Norm of all gradients before clipping."),
    _gauge("trackmill_training_samples_per_second", "Samples a second over all ranks."),
    _gauge("trackmill_training_step_seconds", "Seconds that the newest step took."),
    _gauge("trackmill_training_loader_wait_ratio", "Share of the newest step spent waiting for data, mean over ranks."),
    _gauge("trackmill_training_memory_bytes", "Most bytes held so far by a rank's tensors or process."),
    _gauge("trackmill_training_bad_samples", "Samples skipped so far because they cannot be read."),
    _counter("trackmill_training_skipped_steps_total", "Steps that gave no numbers and were left out."),
    _gauge("trackmill_training_evaluation", "The newest evaluation, by metric.", "metric"),
    _gauge("trackmill_training_checkpoint_step", "Step of the newest checkpoint."),
    _gauge("trackmill_training_checkpoint_timestamp_seconds", "When the newest checkpoint was written, in Unix time."),
    _gauge("trackmill_training_checkpoint_seconds", "Seconds that writing it took."),
    _gauge("trackmill_training_checkpoint_bytes", "Bytes of it."),
    _gauge("trackmill_training_ranks", "Ranks of the run."),
    _gauge("trackmill_training_running", "1 while the run trains, 0 once it has ended in good order."),
    _gauge(
        "trackmill_training_started_timestamp_seconds", "When these ranks began, in Unix time; changes when restarted."
    ),
    _gauge("trackmill_training_last_progress_timestamp_seconds", "When a step was last finished, in Unix time."),
    _gauge("trackmill_training_output_free_bytes", "Free space where the output lies; only of a local one."),
    _gauge("trackmill_training_output_size_bytes", "Size of the disk where the output lies; only of a local one."),
    _gauge("trackmill_training_info", "1; what is trained.", "recipe", "task", "version"),
)
"""Of `trackmill train`; rank 0 tells them."""

BY_NAME = {metric.name: metric for metric in (*MINING, *TRAINING)}
