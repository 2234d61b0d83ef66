"""Running statistics of norms, which the forward pass changes: a step that is left out leaves them as they were."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunningStatistics:
    """The running means, variances and counters of all norms of a module that take note of batches.

    One batch whose variance overflows would stay in them for good, and every later evaluation and the result with it:
    `0.9 * x + 0.1 * inf`. Other buffers are the module's own business; checkpoints refuse them where they hold no
    numbers.

    Args:
        module: the task's module, on its device.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._live: list[Tensor] = []
        self._kept: list[Tensor] = []

    @torch.no_grad()
    def keep(self) -> None:
        """Remember them; before the first forward pass of a step."""
        self._live = [
            buffer
            for norm in self._module.modules()
            if norm.training and isinstance(getattr(norm, "running_mean", None), Tensor)
            for buffer in norm.buffers(recurse=False)
        ]
        self._kept = [each.clone() for each in self._live]

    @torch.no_grad()
    def finite(self) -> bool:
        """Whether all are numbers now."""
        floats = [each for each in self._live if each.is_floating_point()]
        if not floats:
            return True
        return bool(torch.stack([total.isfinite() for total in torch._foreach_norm(floats, 1)]).all())

    @torch.no_grad()
    def restore(self) -> None:
        """Make them what they were."""
        for live, kept in zip(self._live, self._kept, strict=True):
            live.copy_(kept)
