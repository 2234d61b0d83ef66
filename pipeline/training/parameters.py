"""What a network consists of: parameters by part, and by group of the optimiser; counted without reading weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from trackmill.pipeline.tasks.base import Task, TrainingModule
from trackmill.pipeline.training.engines.base import OptimSettings
from trackmill.pipeline.training.engines.optimiser import trained_parameters
from trackmill.pipeline.training.engines.parameter_groups import split_parameters


@dataclass(frozen=True, kw_only=True)
class ParameterCount:
    """Numbers (not tensors) in one part of the module."""

    part: str
    parameters: int
    trainable: int


@dataclass(frozen=True, kw_only=True)
class GroupCount:
    """One group of the optimiser.

    Args:
        match: the pattern of `optim.groups`; empty for what matches none.
        tensors: how many parameters, as tensors.
        parameters: how many numbers they hold.
        lr_factor, weight_decay: see `optim.groups`.
    """

    match: str
    tensors: int
    parameters: int
    lr_factor: float
    weight_decay: float


def outline(task: Task, seed: int) -> TrainingModule:
    """The module of a task for counting: no file is read, and no memory is taken where torch's meta device will do."""
    try:
        with torch.device("meta"):
            return task.build(seed, read_weights=False)
    except Exception:
        # A layer computes with numbers while it is made, which the meta device does not have; or it is a real mistake,
        # which comes up again.
        return task.build(seed, read_weights=False)


def count_parameters(module: nn.Module) -> tuple[ParameterCount, ...]:
    """Parameters of each top-level part of the network, and of what the module has beside it."""
    counts: dict[str, list[int]] = {}
    for name, values in module.named_parameters():
        words = name.split(".")
        part = words[1] if words[0] == "network" and len(words) > 1 else words[0]
        count = counts.setdefault(part, [0, 0])
        count[0] += values.numel()
        count[1] += values.numel() * values.requires_grad
    return tuple(ParameterCount(part=part, parameters=all_, trainable=some) for part, (all_, some) in counts.items())


def count_groups(module: nn.Module, optim: OptimSettings) -> tuple[GroupCount, ...]:
    """The optimiser's groups.

    Raises:
        ConfigError: see `split_parameters`.
        ValueError: nothing is trained.
    """
    frozen = tuple(name for name, each in module.named_parameters() if not each.requires_grad)
    return tuple(
        GroupCount(
            match=each.match,
            tensors=len(each.parameters),
            parameters=sum(values.numel() for values in each.parameters.values()),
            lr_factor=each.lr_factor,
            weight_decay=each.weight_decay,
        )
        for each in split_parameters(trained_parameters(module), optim, frozen)
    )
