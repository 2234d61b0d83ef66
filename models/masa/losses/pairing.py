"""Pairs the embeddings of two views for the contrastive loss (positive, negative, ignored); how hard they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from trackmill.models.masa.losses.across_ranks import Block, gather_blocks
from trackmill.models.masa.losses.assigning import pairwise_iou
from trackmill.models.masa.losses.contrastive import match_instances, pair_targets


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewSamples:
    """The objects and the embedded samples of one view of one image.

    Args:
        boxes: (G, 4) float32 xyxy boxes of the objects.
        ids: (G,) int64 identities of the objects, see `match_instances`.
        truths: (P,) int64, index of the object that each positive sample shows.
        samples: (P + Q, 4) boxes of all samples, positives first.
        embeddings: (P, D) of the positives, or (P + Q, D) of all samples.
        groups: names of the videos or files that the view's pixels come from.
    """

    boxes: Tensor
    ids: Tensor
    truths: Tensor
    samples: Tensor
    embeddings: Tensor
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class ContrastPairs:
    """All pairs (row, column) that one contrastive loss compares.

    Args:
        rows: (P, D) embeddings of the positives of one view.
        columns: (R, D) embeddings of the samples of the other view.
        targets: (P, R) bool, true where both show the same object.
        ignored: (P, R) bool, true where a pair is neither positive nor negative; None ignores no pair.
        num_images: from so many images.
    """

    rows: Tensor
    columns: Tensor
    targets: Tensor
    ignored: Tensor | None = None
    num_images: int = 1


def pair_views(
    rows: Sequence[ViewSamples], columns: Sequence[ViewSamples], negatives: Literal["pair", "batch"], ignore_iou: float
) -> list[ContrastPairs]:
    """Pair the two views of B images.

    Args:
        rows, columns: the two views of each image. Rows are the positives of `rows`, columns all samples of `columns`.
        negatives: `pair` returns one `ContrastPairs` for each image. `batch` returns a single one, in which the columns
            of other images, those of other ranks included, are negatives too. Pairs of two images that share a group
            are ignored, because both may show the same object.
        ignore_iou: ignores samples of another object whose IoU with the row's object, in the view of `columns`, is
            above this; 1 ignores none.
    """
    alone = [_pair_views(row, column, ignore_iou) for row, column in zip(rows, columns)]
    if negatives == "pair" or not alone:
        return alone
    blocks = gather_blocks(
        [
            Block(
                rows=each.rows,
                columns=each.columns,
                targets=each.targets,
                ignored=torch.zeros_like(each.targets) if each.ignored is None else each.ignored,
                row_groups=tuple(row.groups),
                column_groups=tuple(column.groups),
            )
            for each, row, column in zip(alone, rows, columns, strict=True)
        ]
    )
    targets = torch.block_diag(*[each.targets for each in blocks])
    ignored = torch.block_diag(*[each.ignored for each in blocks])
    related = torch.tensor(
        [[i != j and _share_group(a, b) for j, b in enumerate(blocks)] for i, a in enumerate(blocks)]
    )
    if bool(related.any()):
        heights, widths = [len(each.rows) for each in blocks], [len(each.columns) for each in blocks]
        ignored |= _expand_blocks(related.to(targets.device), heights, widths)
    return [
        ContrastPairs(
            rows=torch.cat([each.rows for each in blocks]),
            columns=torch.cat([each.columns for each in blocks]),
            targets=targets,
            ignored=ignored,
            num_images=len(blocks),
        )
    ]


@torch.no_grad()
def pair_telemetry(pairs: Sequence[ContrastPairs]) -> dict[str, Tensor]:
    """How difficult the contrast is, as three scalars: `masa_losses` explains them."""
    positives = torch.stack([each.targets.any(dim=1).sum() for each in pairs]).float().mean()
    effective, gaps = [], []
    for each in pairs:
        ref, targets = each.columns, each.targets
        negatives = ~targets if each.ignored is None else ~(targets | each.ignored)
        counts = targets.any(dim=1) & negatives.any(dim=1)
        if not counts.any():
            continue
        key, positive, negative = each.rows[counts], targets[counts], negatives[counts]
        weights = (key @ ref.T).masked_fill(~negative, -torch.inf).softmax(dim=1)  # a row's negatives sum to 1
        effective.append((1 / weights.square().sum(dim=1)).mean())
        cosines = F.normalize(key, dim=1) @ F.normalize(ref, dim=1).T
        gaps.append(cosines[positive].mean() - cosines[negative].mean())
    return {
        "positives": positives,
        "effective_negatives": torch.stack(effective).mean() if effective else torch.zeros_like(positives),
        "similarity_gap": torch.stack(gaps).mean() if gaps else torch.zeros_like(positives),
    }


def _pair_views(row: ViewSamples, column: ViewSamples, ignore_iou: float) -> ContrastPairs:
    matches = match_instances(row.ids, column.ids)  # (G,)
    targets = pair_targets(matches, row.truths, column.truths, len(column.samples))
    ignored = None
    if ignore_iou < 1 and len(column.boxes):
        partners = matches[row.truths]  # (P,)
        iou = pairwise_iou(column.boxes[partners.clamp(min=0)], column.samples)  # (P, R)
        ignored = (iou > ignore_iou) & (partners >= 0)[:, None] & ~targets
    return ContrastPairs(
        rows=row.embeddings[: len(row.truths)], columns=column.embeddings, targets=targets, ignored=ignored
    )


def _share_group(a: Block, b: Block) -> bool:
    return not set(a.row_groups).isdisjoint(b.column_groups)


def _expand_blocks(blocks: Tensor, heights: Sequence[int], widths: Sequence[int]) -> Tensor:
    """Repeat entry (i, j) of `blocks` (B, B) `heights[i]` x `widths[j]` times: (sum of heights, sum of widths)."""
    tall = blocks.repeat_interleave(torch.tensor(heights, device=blocks.device), dim=0)
    return tall.repeat_interleave(torch.tensor(widths, device=blocks.device), dim=1)
