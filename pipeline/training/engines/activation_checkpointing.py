"""Activation checkpointing: heavy repeated blocks forget their activations and compute them again in the backward pass.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016; torch.utils.checkpoint without re-entrance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def checkpoint_blocks(module: nn.Module) -> list[str]:
    """Wrap the blocks of a module in place, see `blocks_of`; state-dict names stay. Returns the blocks' names."""
    blocks = blocks_of(module)
    for block in blocks.values():
        block.forward = _CheckpointedForward(block)
    return list(blocks)


def blocks_of(module: nn.Module) -> dict[str, nn.Module]:
    """The blocks worth recomputing, by name.

    A part of the module that has a method `checkpointed_blocks()` says itself which of its modules they are. Elsewhere
    they are what stands repeatedly in an `nn.Sequential` or `nn.ModuleList`: two or more modules of one class, each
    made of several (blocks of a ResNet, ViT or Swin), the outermost ones. Frozen blocks keep no activations and
    are left out.
    """
    blocks: dict[str, nn.Module] = {}
    _search("", module, blocks)
    return blocks


def _search(name: str, module: nn.Module, blocks: dict[str, nn.Module]) -> None:
    declared = getattr(module, "checkpointed_blocks", None)
    if callable(declared):
        names = {each: inner for inner, each in module.named_modules(prefix=name)}
        blocks.update({names[block]: block for block in declared() if _trains(block)})
        return
    repeated: set[type[nn.Module]] = set()
    if isinstance(module, (nn.Sequential, nn.ModuleList)):
        classes = Counter(type(child) for child in module if next(child.children(), None) is not None)
        repeated = {cls for cls, number in classes.items() if number > 1}
    for child_name, child in module.named_children():
        full_name = f"{name}.{child_name}" if name else child_name
        if type(child) not in repeated:
            _search(full_name, child, blocks)
        elif _trains(child):
            blocks[full_name] = child


def _trains(block: nn.Module) -> bool:
    return any(each.requires_grad for each in block.parameters())


class _CheckpointedForward:
    """Stands in for a block's `forward`."""

    def __init__(self, block: nn.Module) -> None:
        self.forward = block.forward
        self.norms = [each for each in block.modules() if isinstance(each, _BatchNorm)]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        return checkpoint(
            self.forward, *args, use_reentrant=False, preserve_rng_state=True, context_fn=self._contexts, **kwargs
        )

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), self._statistics_kept()

    @contextmanager
    def _statistics_kept(self) -> Iterator[None]:
        """Batch norms take note of a batch once, not again when it is computed again."""
        norms = [each for each in self.norms if each.training and each.num_batches_tracked is not None]
        before = [(each.momentum, cast(Tensor, each.num_batches_tracked).clone()) for each in norms]
        for each in norms:
            each.momentum = 0.0
        try:
            yield
        finally:
            for each, (momentum, number) in zip(norms, before, strict=True):
                each.momentum = momentum
                cast(Tensor, each.num_batches_tracked).copy_(number)
