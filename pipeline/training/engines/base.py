"""How tensors are spread over ranks, behind five calls: forward, backward, step, state, load."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from trackmill.pipeline.tasks.base import TrainingModule
from trackmill.schemas.config import Settings


class EngineSettings(Settings):
    """Section `engine`: none of it changes what is learnt, but for rounding."""

    name: Literal["torch", "deepspeed"] = Field("torch", description="torch: plain or DDP; deepspeed: ZeRO.")
    zero_stage: Literal[0, 1, 2, 3] = Field(2, description="What ZeRO spreads: optimiser, gradients, parameters.")
    precision: Literal["float32", "tf32", "bfloat16", "float16"] = Field(
        "float32",
        description="Of the forward pass; weights, gradients and optimiser stay float32. tf32: float32 with products "
        "of 10 bits, on GPUs since Ampere. float16 needs a GPU.",
    )
    activation_checkpointing: bool = Field(False, description="Recompute activations: less memory, more time.")
    sync_batch_norm: bool = Field(True, description="Batch statistics over all ranks, on GPUs, as released.")
    deterministic: bool = Field(
        True,
        description="The same bits each time, wherever torch can. RoIAlign is slower so on a GPU; false "
        "there trains as released.",
    )


_Beta = Annotated[float, Field(ge=0, lt=1)]


class GroupSettings(Settings):
    """One entry of `optim.groups`."""

    match: str = Field(
        min_length=1, description='Names of parameters in the network, with wildcards, such as "backbone.*".'
    )
    lr_factor: float = Field(1.0, gt=0, le=1e6, description="Their learning rate is that of the schedule times this.")
    weight_decay: float | None = Field(None, ge=0, le=100, description="Theirs; left out: that of the section.")


class OptimSettings(Settings):
    """Section `optim`."""

    name: Literal["sgd", "adamw"] = Field("sgd", description="Released: sgd.")
    lr: float = Field(0.08, gt=0, le=1000, description="Peak learning rate, for the batch size of the recipe.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Of sgd.")
    betas: tuple[_Beta, _Beta] = Field((0.9, 0.999), description="Of adamw.")
    weight_decay: float = Field(1e-4, ge=0, le=100, description="On all trained parameters, as released.")
    decay_norms: bool = Field(
        True, description="false: norms and biases, that is vectors, are not decayed, in no group."
    )
    groups: tuple[GroupSettings, ...] = Field(
        (),
        description="Parameters with a rate or decay of their own; the first group that matches one has it.",
    )
    clip_norm: float = Field(35.0, ge=0, description="Limit of the gradients' norm over all parameters; 0: none.")
    accumulate: int = Field(1, gt=0, description="Parts into which a batch is cut to save memory.")


@dataclass(kw_only=True)
class EngineState:
    """Everything an engine has to remember, free of ranks, stages and devices.

    Args:
        parameters: every tensor of the module's state dict by its name: float32 master values for what is trained;
            frozen parameters are left out. Buffers are those of rank 0.
        moments: optimiser state, `{parameter name}/{exp_avg|exp_avg_sq|momentum_buffer}`, float32, full shape; zeros
            before the first step.
        numbers: plain JSON values: `steps`, optimiser steps taken; `loss_scale` and `good_steps` in float16.
    """

    parameters: dict[str, Tensor]
    moments: dict[str, Tensor]
    numbers: dict[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """One rank's share of a training run.

    A step is `accumulate` times forward and backward, then `step`. A parameter that had no part in the loss of a step
    counts as one with a zero gradient, on every rank and in every engine: its momentum and decay go on.

    Args:
        module: the task's module, without wrappers, on `device`. Under ZeRO-3 its parameters are spread over ranks and
            only `forward` may run it.
        device: of this rank.
        loss_scale: factor of the loss in float16; 1 elsewhere.
        kept_statistics: so many steps left this rank's running statistics as they were, because they overflowed.
    """

    module: TrainingModule
    device: torch.device
    kept_statistics: int

    @property
    def loss_scale(self) -> float: ...

    def forward(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """The module's losses of this rank's part of a (micro) batch, in the precision that was asked for.

        Args:
            batch: nested dicts, lists, tuples and dataclasses of tensors, on any device; moved to `device` here.
            generator: passed on as it is.
        """

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add the gradients of `loss / accumulate`; collective.

        `last` is said the `accumulate`-th time: gradients are then averaged over ranks.
        """

    def step(self, lr: float) -> float:
        """Clip, update at this learning rate (times each group's factor), clear gradients.

        Returns the norm before clipping, or nan if not known.

        A step whose gradients are not finite changes nothing but the loss scale, also not the running statistics of
        norms; the norm is then inf or nan. Statistics that overflowed go back to what they were in any case.
        """

    def state(self) -> EngineState | None:
        """Collective: every rank must call it; rank 0 gets the state on the CPU, the others None."""

    def load(self, state: EngineState) -> None:
        """Collective: every rank hands over the same state, from an engine of any kind on any number of ranks.

        Raises:
            ValueError: names or shapes do not fit the module; says which.
        """

    def close(self) -> None:
        """Give back what the engine holds; it cannot be used afterwards."""
