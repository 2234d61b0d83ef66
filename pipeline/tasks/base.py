"""What is learnt, apart from how: everything that the loop asks of a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trackmill.pipeline.loader.contract import MakeExample


class TrainingModule(nn.Module):
    """The network together with its losses, so that engines wrap one forward pass.

    Frozen parts have `requires_grad` off and stay in evaluation mode whatever `train` is told.
    """

    network: nn.Module
    """What is saved as the result; a submodule, so its tensors are named `network.*` here."""

    def forward(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars: `total`, with gradients, its parts, and telemetry without.

        Args:
            batch: what the task's `collate` gave, moved to the module's device.
            generator: all randomness of this step; on the CPU or the module's device.
        """
        raise NotImplementedError


class Task(Protocol):
    """One thing to learn: MASA, and later ScaleTrack's clips and IP-MOT's queries."""

    name: str

    def build(self, seed: int) -> TrainingModule:
        """The network with its starting weights, the same for the same seed, on the CPU in training mode."""

    def make_example(self) -> MakeExample:
        """What workers do with a stored sample; a small picklable object."""

    def collate(self, examples: Sequence[Any]) -> Any:
        """Examples of this rank's part of a batch, in order, to nested dicts, lists and tuples of tensors."""

    def metadata(self) -> dict[str, str]:
        """What is written into the header of the result's safetensors, so that `models.*.load` reads it."""

    def evaluation(self) -> Callable[[nn.Module, torch.device], Mapping[str, float]] | None:
        """Measures the network (in evaluation mode) now and then; None where the recipe asks for nothing."""
