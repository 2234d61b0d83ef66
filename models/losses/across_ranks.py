"""Rows of all ranks with gradients, for losses that compare the objects of a whole batch.

Every rank computes the loss of the whole batch. Engines average gradients over the W ranks, so each rank sends W times
the gradient of its own rows into its own network:

    1/W sum over ranks s of (W dL/de_s) (de_s/dw) = dL/dw

and the gradients need no message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of ranks; 1 where there are no processes beside this one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_counts(own: int, device: torch.device) -> list[int]:
    """A number of every rank, in their order."""
    if world_size() == 1:
        return [own]
    mine = torch.tensor([own], device=device)
    parts = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(parts, mine)
    return torch.cat(parts).tolist()


def gather_rows(own: Tensor, counts: Sequence[int]) -> Tensor:
    """(N_r, ...) of every rank as (sum of N_r, ...), without gradients.

    Args:
        own: this rank's rows.
        counts: N_r of every rank.
    """
    if len(counts) == 1:
        return own
    longest = max(1, *counts)
    padded = own.new_zeros(longest, *own.shape[1:])
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def gather_rows_with_gradients(own: Tensor, counts: Sequence[int]) -> Tensor:
    """As `gather_rows`; the gradient of this rank's rows comes back, times the number of ranks (head of the file)."""
    if len(counts) == 1:
        return own
    return cast(Tensor, _Gather.apply(own, counts, dist.get_rank()))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, counts: Sequence[int], rank: int) -> Tensor:
        ctx.begin, ctx.count, ctx.world = sum(counts[:rank]), counts[rank], len(counts)
        return gather_rows(own, counts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        own = gradients[0].narrow(0, ctx.begin, ctx.count)
        return cast(Tensor, own * ctx.world), None, None
