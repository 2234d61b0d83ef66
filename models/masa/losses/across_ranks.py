"""The images of a batch that other ranks hold, so that `negatives = "batch"` means the same on any number of ranks.

Every rank computes the loss of the whole batch. Engines average gradients over the W ranks, so each rank sends W times
the gradient of its own embeddings into its own network:

    1/W sum over ranks s of (W dL/de_s) (de_s/dw) = dL/dw

and the gradients need no message. Only embeddings and what is known of them travel, no pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """One image: its own pairs, and where its pixels come from.

    Args:
        rows: (P, D) embeddings of one view.
        columns: (R, D) embeddings of the other view.
        targets, ignored: (P, R) bool, see `ContrastPairs`.
        row_groups, column_groups: names of the videos or files whose pixels are in each view.
    """

    rows: Tensor
    columns: Tensor
    targets: Tensor
    ignored: Tensor
    row_groups: tuple[str, ...]
    column_groups: tuple[str, ...]


def gather_blocks(own: Sequence[Block]) -> list[Block]:
    """The images of all ranks, in the order of ranks; alone, the same list. Every rank must call it equally often.

    Args:
        own: this rank's images, at least one; embeddings of one width everywhere.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return list(own)
    world, rank = dist.get_world_size(), dist.get_rank()
    about: list[Any] = [None] * world
    dist.all_gather_object(about, [(tuple(each.targets.shape), each.row_groups, each.column_groups) for each in own])
    heights = [[shape[0] for shape, _, _ in images] for images in about]
    widths = [[shape[1] for shape, _, _ in images] for images in about]
    areas = [[shape[0] * shape[1] for shape, _, _ in images] for images in about]
    rows = _Gather.apply(torch.cat([each.rows for each in own]), [sum(each) for each in heights], rank)
    columns = _Gather.apply(torch.cat([each.columns for each in own]), [sum(each) for each in widths], rank)
    masks = torch.cat([torch.stack([each.targets, each.ignored]).flatten(1) for each in own], dim=1)  # (2, sum P R)
    masks = _gather(masks.t().to(torch.uint8).contiguous(), [sum(each) for each in areas]).bool()
    parts = zip(
        [image for images in about for image in images],
        rows.split([size for sizes in heights for size in sizes]),
        columns.split([size for sizes in widths for size in sizes]),
        masks.split([size for sizes in areas for size in sizes]),
        strict=True,
    )
    return [
        Block(
            rows=row,
            columns=column,
            targets=mask[:, 0].view(shape),
            ignored=mask[:, 1].view(shape),
            row_groups=row_groups,
            column_groups=column_groups,
        )
        for (shape, row_groups, column_groups), row, column, mask in parts
    ]


def _gather(own: Tensor, counts: Sequence[int]) -> Tensor:
    """(N_r, ...) of every rank as (sum of N_r, ...)."""
    longest = max(1, *counts)
    padded = own.new_zeros(longest, *own.shape[1:])
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


class _Gather(torch.autograd.Function):
    """`_gather`, with gradients: see the head of the file."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, counts: Sequence[int], rank: int) -> Tensor:
        ctx.begin, ctx.count, ctx.world = sum(counts[:rank]), counts[rank], len(counts)
        return _gather(own, counts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        own = gradients[0].narrow(0, ctx.begin, ctx.count)
        return cast(Tensor, own * ctx.world), None, None
