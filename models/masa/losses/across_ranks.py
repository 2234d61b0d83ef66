"""The images of a batch that other ranks hold, so that `negatives = "batch"` means the same on any number of ranks.

Only embeddings and what is known of them travel, no pictures; `trackmill.models.losses.across_ranks` tells how their
gradients come back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from trackmill.models.losses.across_ranks import gather_rows, gather_rows_with_gradients, world_size


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
    if world_size() == 1:
        return list(own)
    about: list[Any] = [None] * world_size()
    dist.all_gather_object(about, [(tuple(each.targets.shape), each.row_groups, each.column_groups) for each in own])
    heights = [[shape[0] for shape, _, _ in images] for images in about]
    widths = [[shape[1] for shape, _, _ in images] for images in about]
    areas = [[shape[0] * shape[1] for shape, _, _ in images] for images in about]
    rows = gather_rows_with_gradients(torch.cat([each.rows for each in own]), [sum(each) for each in heights])
    columns = gather_rows_with_gradients(torch.cat([each.columns for each in own]), [sum(each) for each in widths])
    masks = torch.cat([torch.stack([each.targets, each.ignored]).flatten(1) for each in own], dim=1)  # (2, sum P R)
    masks = gather_rows(masks.t().to(torch.uint8).contiguous(), [sum(each) for each in areas]).bool()
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
