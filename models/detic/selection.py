"""From scores of boxes to detections: threshold, NMS, the best (Detic's `detic_roi_heads`, detectron2's `fast_rcnn`).

256 boxes and 22,047 classes are 5.6 million scores an image. Scores are computed for some rows at a time and filtered
there, and NMS looks at the best of what is left until it has enough: both give what all at once would give.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

from trackmill.models.detic.classifier import ZeroShotClassifier
from trackmill.models.detic.settings import DetectionSettings

_SCORES_AT_ONCE = 1 << 24
"""So many scores are in memory together: 64 MB, and as much again while they are computed."""

_OFFSETS_UP_TO = 1000
"""Up to so many candidates of an image, torchvision's NMS of classes works with offsets, above class by class."""

_FIRST_LOOK = 2048
"""So many of the best candidates NMS looks at first, and then each time at four times as many."""


class Candidates(NamedTuple):
    """What passes the threshold: `rows` (N,) of boxes, `labels` (N,), `scores` (N,), by row and then by label."""

    rows: Tensor
    labels: Tensor
    scores: Tensor


class Selected(NamedTuple):
    """Detections of an image, best first: `rows` (N,) of its boxes, `labels` (N,), `scores` (N,)."""

    rows: Tensor
    labels: Tensor
    scores: Tensor


def class_scores(probabilities: Sequence[Tensor], proposal_scores: Tensor, one_class: bool = False) -> Tensor:
    """`sqrt(mean over stages of the probability * the proposal's score)`, without the background.

    Args:
        probabilities: (N, C + 1) of each stage, the background last.
        proposal_scores: (N,); roots already, see `trackmill.models.detic.centernet.proposals`.
        one_class: of each proposal keep only the best class; where several are equally good, all of them.

    Returns:
        (N, C).
    """
    mean = sum(probabilities) * (1.0 / len(probabilities))
    scores = (mean[:, :-1] * proposal_scores[:, None]) ** 0.5  # type: ignore[index]
    if one_class:
        scores = scores * (scores == scores.amax(dim=1, keepdim=True))
    return scores


def find_candidates(
    classifiers: Sequence[ZeroShotClassifier],
    features: Sequence[Tensor],
    proposal_scores: Tensor,
    boxes: Tensor,
    settings: DetectionSettings,
) -> Candidates:
    """Which classes of which boxes have a score above the threshold.

    Args:
        classifiers: of the stages.
        features: (N, hidden) of each stage.
        proposal_scores: (N,).
        boxes: (N, 4); rows that are not finite, in box or score, are left out.
        settings: threshold, and whether a proposal has one class only.
    """
    width = classifiers[0].zs_weight.shape[1]
    found = []
    for start in range(0, len(boxes), step := max(1, _SCORES_AT_ONCE // width)):
        part = slice(start, start + step)
        probabilities = [each(feature[part]).sigmoid() for each, feature in zip(classifiers, features, strict=True)]
        scores = class_scores(probabilities, proposal_scores[part], settings.one_class_per_proposal)
        finite = boxes[part].isfinite().all(dim=1) & scores.sum(dim=1).isfinite()
        rows, labels = torch.nonzero((scores > settings.score_threshold) & finite[:, None], as_tuple=True)
        found.append((rows + start, labels, scores[rows, labels]))
    if not found:
        nothing = torch.zeros(0, dtype=torch.int64, device=boxes.device)
        return Candidates(nothing, nothing, boxes.new_zeros(0))
    return Candidates(*map(torch.cat, zip(*found, strict=True)))


def select(candidates: Candidates, boxes: Tensor, settings: DetectionSettings) -> Selected:
    """NMS among the candidates of an image, then the best.

    The result is that of `torchvision.ops.batched_nms` on the CPU over all of them, on any device: what NMS does with a
    box is decided by better boxes alone, so the best 300 are known when enough of the best have been looked at.

    Args:
        candidates: of this image, `rows` being rows of `boxes`.
        boxes: (N, 4), clipped.
        settings: NMS and how many stay.

    Returns:
        On the CPU.
    """
    total, looked_at = len(candidates.scores), _FIRST_LOOK
    # Stable, as NMS is: of equal scores the one of the earlier row and label comes first.
    order = candidates.scores.sort(descending=True, stable=True).indices
    while True:
        part = order[:looked_at] if looked_at < total else order
        rows, labels, scores = (each[part].cpu() for each in candidates)
        keep = _nms(boxes[candidates.rows[part]].cpu(), scores, labels, settings, total <= _OFFSETS_UP_TO)
        if len(keep) >= settings.max_boxes or looked_at >= total:
            keep = keep[: settings.max_boxes]
            return Selected(rows[keep], labels[keep], scores[keep])
        looked_at *= 4


def _nms(boxes: Tensor, scores: Tensor, labels: Tensor, settings: DetectionSettings, few: bool) -> Tensor:
    """Rows that stay, best first."""
    if settings.class_agnostic_nms:
        keep: Tensor = nms(boxes, scores, settings.nms_iou)
        return keep
    if few:
        # Shifted by a multiple of the label, which costs some of float32's digits: part of the released result.
        keep = batched_nms(boxes, scores, labels, settings.nms_iou)
        return keep
    return nms_by_class(boxes, scores, labels, settings.nms_iou)


def nms_by_class(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float) -> Tensor:
    """NMS within each class, without offsets; as torchvision's for many boxes, in one pass over them.

    Args:
        boxes: (N, 4).
        scores: (N,).
        labels: (N,).
        iou: of two boxes of a class with a larger IoU, the one of higher score stays.

    Returns:
        (M,) indices of those that stay, best first; of equal scores the earlier one first.
    """
    by_class = labels.sort(stable=True).indices
    _, sizes = labels[by_class].unique_consecutive(return_counts=True)
    kept = [
        members if len(members) == 1 else members[nms(boxes[members], scores[members], iou)]
        for members in by_class.split(sizes.tolist())
    ]
    keep = torch.cat(kept).sort().values if kept else by_class
    return keep[scores[keep].sort(descending=True, stable=True).indices]
