"""Which embeddings of two views are compared, as what, and how hard that comparison is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from trackmill.models.masa.losses.assigning import overlaps
from trackmill.models.masa.losses.contrastive import match_instances, pair_targets


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """One view of one image.

    Args:
        boxes: (G, 4) float32 xyxy, its objects.
        ids: (G,) int64, see `match_instances`.
        truths: (P,) int64, object of each positive sample.
        samples: (P + Q, 4) boxes of all samples, positives first.
        embeddings: (P, D) of the positives, or (P + Q, D) of all samples.
        groups: names of the videos or files whose pixels are in the view.
    """

    boxes: Tensor
    ids: Tensor
    truths: Tensor
    samples: Tensor
    embeddings: Tensor
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """What a contrast is taken over.

    Args:
        rows: (P, D) embeddings of positives of one view.
        columns: (R, D) embeddings of samples of the other.
        targets: (P, R) bool, both show the same object.
        ignored: (P, R) bool, neither positive nor negative; None for no pair at all.
    """

    rows: Tensor
    columns: Tensor
    targets: Tensor
    ignored: Tensor | None = None


def compare(
    rows: Sequence[Side], columns: Sequence[Side], negatives: Literal["pair", "batch"], ignore_iou: float
) -> list[Comparison]:
    """Comparisons of B images' two views.

    Args:
        rows, columns: the two views of each image; of `rows` the positives count, of `columns` all samples.
        negatives: `pair` gives a comparison an image; `batch` a single one, in which the columns of all other images
            are negatives too, unless the two images share a group: then nobody knows, and they are ignored.
        ignore_iou: samples of another object that overlap a row's object more than this, in the view of `columns`,
            are ignored; 1 for none.
    """
    alone = [_compare(row, column, ignore_iou) for row, column in zip(rows, columns)]
    if negatives == "pair" or not alone:
        return alone
    targets = torch.block_diag(*[each.targets for each in alone])
    ignored = torch.zeros_like(targets)
    if any(each.ignored is not None for each in alone):
        ignored = torch.block_diag(
            *[torch.zeros_like(each.targets) if each.ignored is None else each.ignored for each in alone]
        )
    akin = torch.tensor([[i != j and _akin(a, b) for j, b in enumerate(columns)] for i, a in enumerate(rows)])
    if bool(akin.any()):
        ignored |= _spread(akin.to(targets.device), [len(each.rows) for each in alone], [*map(_width, alone)])
    return [
        Comparison(
            rows=torch.cat([each.rows for each in alone]),
            columns=torch.cat([each.columns for each in alone]),
            targets=targets,
            ignored=ignored,
        )
    ]


@torch.no_grad()
def pair_telemetry(comparisons: Sequence[Comparison]) -> dict[str, Tensor]:
    """How hard the contrast of some comparisons is: see `masa_losses` for the three numbers."""
    positives = torch.stack([each.targets.any(dim=1).sum() for each in comparisons]).float().mean()
    effective, gaps = [], []
    for each in comparisons:
        negatives = ~each.targets if each.ignored is None else ~(each.targets | each.ignored)
        counts = each.targets.any(dim=1) & negatives.any(dim=1)
        if not counts.any():
            continue
        key, positive, negative = each.rows[counts], each.targets[counts], negatives[counts]
        ref = each.columns
        weights = (key @ ref.T).masked_fill(~negative, -torch.inf).softmax(dim=1)  # a row's negatives sum to 1
        effective.append((1 / weights.square().sum(dim=1)).mean())
        cosines = F.normalize(key, dim=1) @ F.normalize(ref, dim=1).T
        gaps.append(cosines[positive].mean() - cosines[negative].mean())
    return {
        "positives": positives,
        "effective_negatives": torch.stack(effective).mean() if effective else torch.zeros_like(positives),
        "similarity_gap": torch.stack(gaps).mean() if gaps else torch.zeros_like(positives),
    }


def _compare(row: Side, column: Side, ignore_iou: float) -> Comparison:
    matches = match_instances(row.ids, column.ids)  # (G,)
    targets = pair_targets(matches, row.truths, column.truths, len(column.samples))
    ignored = None
    if ignore_iou < 1 and len(column.boxes):
        theirs = matches[row.truths]  # (P,)
        iou = overlaps(column.boxes[theirs.clamp(min=0)], column.samples)  # (P, R)
        ignored = (iou > ignore_iou) & (theirs >= 0)[:, None] & ~targets
    return Comparison(
        rows=row.embeddings[: len(row.truths)], columns=column.embeddings, targets=targets, ignored=ignored
    )


def _akin(a: Side, b: Side) -> bool:
    return not set(a.groups).isdisjoint(b.groups)


def _width(comparison: Comparison) -> int:
    return len(comparison.columns)


def _spread(akin: Tensor, heights: Sequence[int], widths: Sequence[int]) -> Tensor:
    """(sum of heights, sum of widths): entry (i, j) of `akin` (B, B) for all pairs of rows of i and columns of j."""
    tall = akin.repeat_interleave(torch.tensor(heights, device=akin.device), dim=0)
    return tall.repeat_interleave(torch.tensor(widths, device=akin.device), dim=1)
