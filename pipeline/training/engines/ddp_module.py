"""What engines put around a task's module: autocast, a path to every parameter, and batches on the right device."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from trackmill.pipeline.loader.nested import map_tensors
from trackmill.pipeline.tasks.base import TrainingModule
from trackmill.pipeline.training.engines.base import EngineSettings
from trackmill.pipeline.training.engines.precision import autocast

ZeroTerm = Literal["after forward", "before forward", "none"]
"""See `EngineModule`."""


class EngineModule(nn.Module):
    """The module in the precision of the settings, with a loss that depends on every trained parameter.

    A part without work in a batch (a head where there are no positives) leaves its parameters out of the graph, on one
    rank and not on another. DDP then waits for gradients that never come, and what is summed up over micro batches
    differs between ranks. So zero times each parameter is added; it changes no bit of a gradient.

    Args:
        module: the task's.
        settings: the precision.
        device: of this rank.
        zero_term: when the zero is made. After the forward pass, gradients are complete, and sent, as the backward pass
            meets them. Before it, autograd comes to the zero last and all gradients are complete at the end, in one
            order: ZeRO-1 and 2 fill their buckets in the order of arrival and would add up different parameters where
            the graphs of two ranks differ. None for ZeRO-3, where parameters are whole only while their module runs.
    """

    def __init__(
        self, module: TrainingModule, settings: EngineSettings, device: torch.device, zero_term: ZeroTerm
    ) -> None:
        super().__init__()
        self.module = module
        self.settings = settings
        self.device = device
        self.zero_term = zero_term

    def forward(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """As the module's; `total` is float32."""
        trained = [each for each in self.module.parameters() if each.requires_grad]
        zero = _Zero.apply(*trained) if self.zero_term == "before forward" else None
        with autocast(self.settings, self.device):
            losses = dict(self.module(batch, generator))
        if self.zero_term == "after forward":
            zero = _Zero.apply(*trained)
        losses["total"] = losses["total"].float() if zero is None else losses["total"].float() + zero
        return losses


class _Zero(torch.autograd.Function):
    """A zero that depends on all given tensors and reads none of them."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        ctx.tensors = [(each.shape, each.dtype, each.device) for each in tensors]
        return torch.zeros((), device=tensors[0].device)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        # One number each, not a tensor of zeros: they all wait at once for the real gradients.
        return tuple(torch.zeros((), dtype=dtype, device=device).expand(shape) for shape, dtype, device in ctx.tensors)


def to_device(batch: Any, device: torch.device) -> Any:
    """Nested dicts, lists, tuples and dataclasses with their tensors on `device`; other values as they are."""
    return map_tensors(batch, lambda tensor: tensor.to(device, non_blocking=True))


def sync_batch_norms(module: nn.Module) -> None:
    """Make batch norms that train take their statistics over all ranks; frozen ones stay as they are."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.modules.batchnorm._BatchNorm) and child.training:
                setattr(parent, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
