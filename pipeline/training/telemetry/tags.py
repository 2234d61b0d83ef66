"""The names of numbers in curves: `lr` of a row of metrics is `optim/lr` in TensorBoard, MLflow and W&B."""

from __future__ import annotations

from collections.abc import Mapping

GROUPS: dict[str, str] = {
    "loss": "loss/total",
    "lr": "optim/lr",
    "grad_norm": "optim/grad_norm",
    "loss_scale": "optim/loss_scale",
    "skipped_steps": "optim/skipped_steps",
    "samples_per_s": "speed/samples_per_s",
    "step_s": "speed/step_s",
    "data_wait": "speed/data_wait",
    "memory_bytes": "speed/memory_bytes",
    "epoch": "data/epoch",
    "bad_samples": "data/bad_samples",
    "positives": "similarity/positives",
    "effective_negatives": "similarity/effective_negatives",
    "similarity_gap": "similarity/gap",
    "chain_length": "similarity/chain_length",
    "chain_length_max": "similarity/chain_length_max",
    "boxes": "queries/boxes",
    "positives_detect": "queries/positives_detect",
    "positives_track": "queries/positives_track",
    "newborn": "queries/newborn",
    "kept": "queries/kept",
    "released": "queries/released",
    "false_positives": "queries/false_positives",
    "duplicates": "queries/duplicates",
    "left_over": "queries/left_over",
    "i2t": "trackbook/i2t",
    "t2i": "trackbook/t2i",
    "crops": "trackbook/crops",
    "identities": "trackbook/identities",
}
"""Everything that is no part of the loss. Names with a slash are kept; a task may choose groups of its own that way."""


def tag(name: str) -> str:
    """`group/name` of a number; what is not known is a part of the loss."""
    return name if "/" in name else GROUPS.get(name, f"loss/{name}")


def tagged(row: Mapping[str, float]) -> dict[str, float]:
    """A row of metrics by tags, without its step."""
    return {tag(name): float(value) for name, value in row.items() if name != "step"}
