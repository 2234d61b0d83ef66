"""One step of training, and the rows of numbers that steps leave behind."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trackmill.pipeline.training.engines.base import Engine
from trackmill.pipeline.training.ranks import gather
from trackmill.schemas.errors import JobError

_TOTALS = ("bad_samples", "kept_statistics")
_PEAKS = ("memory_bytes",)
"""How a number of each rank becomes one of the run; all others are averaged."""
_RARE = ("kept_statistics",)
"""Left out of rows where they are 0."""


class BadLosses(JobError):
    """A task's module broke the contract of `TrainingModule.forward`; says how."""


def run_step(
    engine: Engine,
    batches: Iterator[Any],
    *,
    seed: int,
    step: int,
    rank: int,
    accumulate: int,
    lr: float,
    stage: Callable[[str, int], None],
) -> tuple[dict[str, Tensor], float]:
    """Take one step of the optimiser.

    Args:
        engine: of this rank.
        batches: gives this rank's part of one micro batch after the other.
        seed: of the run.
        step: steps done before.
        rank: of this process.
        accumulate: micro batches in the step.
        lr: learning rate of the step.
        stage: is called with what begins: `waiting for data`, `forward`, `backward`, `step`.

    Returns:
        What the module returned, averaged over micro batches, on the device; and the norm of gradients before clipping.
    """
    sums: dict[str, Tensor] = {}
    for micro in range(accumulate):
        stage("waiting for data", step)
        batch = next(batches)
        stage("forward", step)
        drawn = int(np.random.SeedSequence([seed, step, micro, rank]).generate_state(1, np.uint64)[0]) >> 1
        torch.manual_seed(drawn)  # for layers that draw by themselves, such as dropout
        losses = engine.forward(batch, torch.Generator().manual_seed(drawn))
        _check(losses)
        stage("backward", step)
        engine.backward(losses["total"], last=micro == accumulate - 1)
        for name, value in losses.items():
            value = value.detach().double() / accumulate
            sums[name] = sums[name] + value if name in sums else value
    stage("step", step)
    return sums, engine.step(lr)


def _check(losses: dict[str, Tensor]) -> None:
    """What a module returned, held to its contract; shapes and graphs alone, so that nothing waits for the device."""
    if not isinstance(losses, dict) or "total" not in losses:
        found = ", ".join(losses) if isinstance(losses, dict) else type(losses).__name__
        raise BadLosses(f"the task's module returned {found or 'nothing'}; it should return a dict with `total`")
    for name, value in losses.items():
        if not isinstance(value, Tensor) or value.numel() != 1:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise BadLosses(f"the task's module returned {name} as {shape}; each value should be a scalar tensor")
    if not losses["total"].requires_grad:
        raise BadLosses("the task's module returned a total without gradients, so nothing would be learnt from it")


def peak_memory(device: torch.device) -> float:
    """Most bytes held so far: on a GPU by tensors, on the CPU by this process."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


@dataclass(frozen=True, slots=True)
class StepRow:
    """A step over all ranks.

    Args:
        numbers: by name.
        bad_ranks: those whose own loss was no number.
    """

    numbers: dict[str, float]
    bad_ranks: list[int]


class StepRows:
    """Keeps the losses of steps as tensors, so that no step waits for the device, until they are wanted as numbers.

    Args:
        device: where the losses are.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._names: list[str] = []
        self._values: list[list[Tensor]] = []
        self._own: list[dict[str, float]] = []

    def add(self, losses: dict[str, Tensor], measured: dict[str, float], own: dict[str, float]) -> None:
        """Keep a step.

        Args:
            losses: what the module returned; the same names in every step and on every rank.
            measured: further numbers that differ between ranks.
            own: numbers that all ranks share; those of rank 0 are taken.
        """
        names = sorted(losses) + sorted(measured)
        self._names = self._names or names
        if names != self._names:
            odd = sorted(set(names) ^ set(self._names))
            raise ValueError(f"a module returns the same values in every step; {', '.join(odd)} came or went")
        values = [losses[name].to(self._device).double().reshape(()) for name in sorted(losses)]
        rest = torch.tensor([measured[name] for name in sorted(measured)], dtype=torch.float64).to(self._device)
        self._values.append([*values, *rest.unbind()])
        self._own.append(own)

    def flush(self) -> list[StepRow]:
        """The rows since the last call, over all ranks: every rank must call it. One message, one wait."""
        if not self._own:
            return []
        ranks = gather(torch.stack([torch.stack(row) for row in self._values])).cpu().numpy()  # (ranks, steps, names)
        rows = []
        for index, own in enumerate(self._own):
            row = dict(own)
            for column, name in enumerate(self._names):
                of_ranks = ranks[:, index, column]
                name = "loss" if name == "total" else name
                if name in _TOTALS:
                    row[name] = float(of_ranks.sum())
                else:
                    row[name] = float(of_ranks.max() if name in _PEAKS else of_ranks.mean())
                if name in _RARE and not row[name]:
                    del row[name]
            totals = ranks[:, index, self._names.index("total")]
            rows.append(StepRow(row, np.flatnonzero(~np.isfinite(totals)).tolist()))
        self._values, self._own = [], []
        return rows
