"""Turns the heads' outputs into boxes: the proposals of the RPN, and the class-agnostic detections of the RoI head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import nms

from trackmill.models.layers.anchors import level_anchors, per_anchor
from trackmill.models.layers.box_coding import ROI_DEVIATIONS, RPN_DEVIATIONS, decode_boxes


@dataclass(frozen=True, kw_only=True)
class RpnSettings:
    """How anchors become proposals. Defaults: the released test settings.

    Args:
        before_nms: number of best anchors of each level that NMS gets.
        iou_threshold: of two boxes of one level with a larger IoU, the one of higher score stays.
        kept: largest number of proposals per image.
    """

    before_nms: int = 1000
    iou_threshold: float = 0.7
    kept: int = 1000


TEST_PROPOSALS = RpnSettings()
"""Released settings at test time, and for reference images in training."""

KEY_PROPOSALS = RpnSettings(before_nms=2000)
"""Released settings for key images in training."""


@dataclass(frozen=True, kw_only=True)
class DetectionSettings:
    """How the RoI head's outputs become detections. Defaults: the released settings.

    Args:
        score_threshold: detections with a score not above it are dropped.
        iou_threshold: of two boxes with a larger IoU, the one of higher score stays.
        kept: largest number of detections per image. (Released for Detic on TAO: score 0.05, 100 boxes. Paper for
            segmenting everything: 300 boxes.)
    """

    score_threshold: float = 0.02
    iou_threshold: float = 0.5
    kept: int = 50


@torch.no_grad()
def rpn_proposals(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    strides: Sequence[int],
    height: int,
    width: int,
    settings: RpnSettings | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """Proposals of each image. No gradient flows through them.

    Args:
        logits: objectness logits of each level, (B, 3, H_l, W_l).
        deltas: box deltas of each level, (B, 12, H_l, W_l).
        strides: pixels per cell of each level.
        height, width: pixels of the images before padding; boxes are clipped to them, and boxes without area are
            dropped.
        settings: None: the released test settings.

    Returns:
        For each of the B images boxes (M, 4) xyxy float32 and scores (M,) in 0..1, best first.
    """
    settings = settings or TEST_PROPOSALS
    anchors = level_anchors([(each.shape[-2], each.shape[-1]) for each in logits], strides, logits[0].device)
    level_logits = [per_anchor(each.float(), 1)[..., 0] for each in logits]
    level_deltas = [per_anchor(each.float(), 4) for each in deltas]
    found = []
    for image in range(len(logits[0])):
        boxes, scores = [], []
        for level, level_anchor in enumerate(anchors):
            score = level_logits[level][image].sigmoid()
            if len(score) > settings.before_nms:
                score, best = score.sort(descending=True, stable=True)
                score, best = score[: settings.before_nms], best[: settings.before_nms]
            else:
                best = torch.arange(len(score), device=score.device)
            box = decode_boxes(level_anchor[best], level_deltas[level][image][best], RPN_DEVIATIONS, height, width)
            has_area = (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])
            boxes.append(box[has_area])
            scores.append(score[has_area])
        found.append(_best_of_levels(boxes, scores, settings))
    return found


def _best_of_levels(boxes: list[Tensor], scores: list[Tensor], settings: RpnSettings) -> tuple[Tensor, Tensor]:
    """NMS within each level, then the best over all levels."""
    if not sum(map(len, boxes)):
        return boxes[0], scores[0]
    # The released code runs one NMS over all levels, after shifting each level's boxes so that levels cannot overlap.
    # The shift rounds coordinates (by up to 2e-4 at 4000 pixels), and so decides pairs at the threshold: we shift too.
    step = torch.cat(boxes).max() + 1
    kept_boxes, kept_scores = [], []
    for level, (box, score) in enumerate(zip(boxes, scores)):
        keep = nms(box + level * step, score, settings.iou_threshold)
        kept_boxes.append(box[keep])
        kept_scores.append(score[keep])
    order = torch.cat(kept_scores).sort(descending=True, stable=True).indices[: settings.kept]
    return torch.cat(kept_boxes)[order], torch.cat(kept_scores)[order]


@torch.no_grad()
def roi_detections(
    logits: Tensor,
    deltas: Tensor,
    proposals: Sequence[Tensor],
    height: int,
    width: int,
    settings: DetectionSettings | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """Class-agnostic detections of each image, by the RoI head.

    Args:
        logits: (sum M_i, 2) of the proposals of all images, one image after the other; column 0 is the object, column 1
            the background.
        deltas: (sum M_i, 4).
        proposals: B tensors (M_i, 4), the regions that were pooled.
        height, width: pixels of the images before padding; boxes are clipped to them.
        settings: None: the released settings.

    Returns:
        For each of the B images boxes (K, 4) xyxy float32 and scores (K,) in 0..1, best first.
    """
    settings = settings or DetectionSettings()
    counts = [len(each) for each in proposals]
    found = []
    for region, logit, delta in zip(proposals, logits.float().split(counts), deltas.float().split(counts)):
        score = logit.softmax(dim=1)[:, 0]
        box = decode_boxes(region.float(), delta, ROI_DEVIATIONS, height, width)
        certain = score > settings.score_threshold
        box, score = box[certain], score[certain]
        keep = nms(box, score, settings.iou_threshold)[: settings.kept]
        found.append((box[keep], score[keep]))
    return found
