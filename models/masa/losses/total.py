"""All losses of one training step of MASA, for a batch of pairs of views of the same pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models.masa.losses.assigning import (
    ROI_ASSIGNMENT,
    RPN_ASSIGNMENT,
    TRACK_ASSIGNMENT,
    AssignSettings,
    assign,
)
from models.masa.losses.auxiliary import margin_loss
from models.masa.losses.contrastive import CONTRASTS, match_instances, pair_targets
from models.masa.losses.detection import SMOOTH_L1_BETA, RpnLossSettings, roi_losses, rpn_losses
from models.masa.losses.sampling import (
    ROI_SAMPLING,
    RPN_SAMPLING,
    TRACK_SAMPLING,
    Samples,
    SampleSettings,
    sample,
)
from models.masa.proposing import KEY_PROPOSALS, TEST_PROPOSALS, ProposalSettings, rpn_proposals

if TYPE_CHECKING:
    from models.masa.model import Masa


@dataclass(frozen=True, kw_only=True, eq=False)
class Targets:
    """The objects of one view.

    Args:
        boxes: (G, 4) float32 xyxy in pixels of the view, each with an area above 0.
        ids: (G,) int64; equal ids above 0 are the same object in both views, an id of 0 matches nothing.

    Raises:
        ValueError: shapes do not fit, or a box is empty or not finite.
    """

    boxes: Tensor
    ids: Tensor

    def __post_init__(self) -> None:
        if self.boxes.ndim != 2 or self.boxes.shape[1] != 4 or self.ids.shape != self.boxes.shape[:1]:
            raise ValueError(
                f"targets need boxes (G, 4) and ids (G,), got {tuple(self.boxes.shape)} and {tuple(self.ids.shape)}"
            )
        has_area = torch.isfinite(self.boxes).all(dim=1) & (self.boxes[:, 2:] > self.boxes[:, :2]).all(dim=1)
        if not has_area.all():
            which = int(torch.nonzero(~has_area)[0])
            raise ValueError(f"target box {which} is empty or not finite: {self.boxes[which].tolist()}; leave it out")


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """Which losses, over which boxes. Defaults: the released training configuration.

    Args:
        contrast: `released` or `paper`, see `losses.contrastive`.
        auxiliary_weight: weight of the margin loss (`losses.auxiliary`); 0 leaves it out.
        key_proposals, ref_proposals: how the proposal head's boxes are chosen in each view.
        rpn_assignment, roi_assignment, track_assignment: which boxes stand for which object.
        rpn_sampling, roi_sampling, track_sampling: how many of them count.

    Raises:
        ValueError: `contrast` is neither form.
    """

    contrast: Literal["released", "paper"] = "released"
    auxiliary_weight: float = 1.0
    key_proposals: ProposalSettings = KEY_PROPOSALS
    ref_proposals: ProposalSettings = TEST_PROPOSALS
    rpn_assignment: AssignSettings = RPN_ASSIGNMENT
    roi_assignment: AssignSettings = ROI_ASSIGNMENT
    track_assignment: AssignSettings = TRACK_ASSIGNMENT
    rpn_sampling: SampleSettings = RPN_SAMPLING
    roi_sampling: SampleSettings = ROI_SAMPLING
    track_sampling: SampleSettings = TRACK_SAMPLING

    def __post_init__(self) -> None:
        if self.contrast not in CONTRASTS:
            raise ValueError(f"contrast = {self.contrast!r} is unknown; it is one of {', '.join(CONTRASTS)}")


RELEASED = LossSettings()
"""What the official weights were trained with."""

PAPER = LossSettings(contrast="paper", auxiliary_weight=0.0)
"""L = L_det + L_C (section 3.2.2): the paper's contrast and no margin loss."""


def masa_losses(
    model: Masa,
    key_images: Tensor,
    ref_images: Tensor,
    key_targets: Sequence[Targets],
    ref_targets: Sequence[Targets],
    generator: torch.Generator,
    *,
    settings: LossSettings = RELEASED,
    key_proposals: Sequence[Tensor] | None = None,
    ref_proposals: Sequence[Tensor] | None = None,
) -> dict[str, Tensor]:
    """Losses of a batch of B pairs; key and reference views go through the network one after the other.

    The model's mode is the caller's: batch statistics of the two passes are separate, as in the released code.
    Detection losses are taken on the key views only.

    Args:
        model: in training mode (its backbone keeps its own rule for batch norm).
        key_images, ref_images: (B, 3, H, W) float RGB 0..255.
        key_targets, ref_targets: B each.
        generator: draws all samples.
        settings: see there.
        key_proposals, ref_proposals: B boxes (N_i, 4) to be used in place of the proposal head's.

    Returns:
        Scalars. With gradients: `rpn_cls`, `rpn_bbox`, `roi_cls`, `roi_bbox`, `track`, `track_aux` and their sum
        `total`. Detached, means over the pairs: `positives` (key boxes whose object is in the reference view);
        `effective_negatives` (how many reference boxes share the softmax weight w of such a box's negatives,
        `(sum w)^2 / sum w^2`) and `similarity_gap` (mean cosine of its positive pairs minus that of its negative
        ones), both over the pairs that have positives and negatives, 0 where none has.

    Raises:
        ValueError: numbers of images, targets or proposals differ.
    """
    _check_lengths(len(key_images), ref_images, key_targets, ref_targets, key_proposals, ref_proposals)
    key_levels, ref_levels = model.features(key_images), model.features(ref_images)
    device = key_levels[0].device
    key_truths = [each.boxes.to(device, torch.float32) for each in key_targets]
    ref_truths = [each.boxes.to(device, torch.float32) for each in ref_targets]

    outputs = model.rpn_head(key_levels)
    losses = _rpn_losses(model, outputs, key_truths, settings, generator)
    if key_proposals is None:
        key_proposals = _proposals(model, outputs, key_images, settings.key_proposals)
    if ref_proposals is None:
        with torch.no_grad():
            outputs = model.rpn_head(ref_levels)
        ref_proposals = _proposals(model, outputs, ref_images, settings.ref_proposals)

    drawn = draw_samples(key_proposals, key_truths, settings.roi_assignment, settings.roi_sampling, generator)
    logits, deltas = model.roi_head(model.pool(key_levels, [each.boxes for each in drawn]))
    losses["roi_cls"], losses["roi_bbox"] = roi_losses(logits, deltas, drawn, key_truths)

    rules = (settings.track_assignment, settings.track_sampling, generator)
    key_drawn = draw_samples(key_proposals, key_truths, *rules)
    ref_drawn = draw_samples(ref_proposals, ref_truths, *rules)
    key_embeddings = model.embed_levels(key_levels, [each.positives for each in key_drawn])
    ref_embeddings = model.embed_levels(ref_levels, [each.boxes for each in ref_drawn])
    targets = [
        pair_targets(match_instances(key.ids.to(device), ref.ids.to(device)), mine.truths, its.truths, len(its.boxes))
        for key, ref, mine, its in zip(key_targets, ref_targets, key_drawn, ref_drawn)
    ]
    # Similarities of dozens have no place in half precision: exp(s) decides what counts.
    with torch.autocast(device.type, enabled=False):
        pairs = [(key.float(), ref.float(), same) for key, ref, same in zip(key_embeddings, ref_embeddings, targets)]
        contrast = CONTRASTS[settings.contrast]
        losses["track"] = torch.stack([contrast(*pair) for pair in pairs]).mean()
        losses["track_aux"] = settings.auxiliary_weight * torch.stack([margin_loss(*pair) for pair in pairs]).mean()
        telemetry = pair_telemetry(pairs)
    losses["total"] = torch.stack(list(losses.values())).sum()
    return losses | telemetry


def draw_samples(
    proposals: Sequence[Tensor],
    truths: Sequence[Tensor],
    assignment: AssignSettings,
    sampling: SampleSettings,
    generator: torch.Generator,
) -> list[Samples]:
    """Assign and draw, image by image: B proposals (N_i, 4) and ground truths (G_i, 4), xyxy pixels."""
    drawn = []
    for boxes, truth in zip(proposals, truths):
        boxes = boxes.to(truth)
        drawn.append(sample(boxes, truth, assign(boxes, truth, assignment), sampling, generator))
    return drawn


@torch.no_grad()
def pair_telemetry(pairs: Sequence[tuple[Tensor, Tensor, Tensor]]) -> dict[str, Tensor]:
    """How hard the contrast is: see `masa_losses` for the three numbers.

    Args:
        pairs: of each pair of views, key embeddings (P, D), reference embeddings (R, D) and targets (P, R) bool.
    """
    positives = torch.stack([targets.any(dim=1).sum() for _, _, targets in pairs]).float().mean()
    effective, gaps = [], []
    for key, ref, targets in pairs:
        counts = targets.any(dim=1) & ~targets.all(dim=1)
        if not counts.any():
            continue
        key, positive = key[counts], targets[counts]
        weights = (key @ ref.T).masked_fill(positive, -torch.inf).softmax(dim=1)  # a row's negatives sum to 1
        effective.append((1 / weights.square().sum(dim=1)).mean())
        cosines = F.normalize(key, dim=1) @ F.normalize(ref, dim=1).T
        gaps.append(cosines[positive].mean() - cosines[~positive].mean())
    return {
        "positives": positives,
        "effective_negatives": torch.stack(effective).mean() if effective else torch.zeros_like(positives),
        "similarity_gap": torch.stack(gaps).mean() if gaps else torch.zeros_like(positives),
    }


def _rpn_losses(
    model: Masa,
    outputs: tuple[list[Tensor], list[Tensor]],
    truths: Sequence[Tensor],
    settings: LossSettings,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    rules = RpnLossSettings(
        beta=0.0 if model.variant.rpn_loss == "l1" else SMOOTH_L1_BETA,
        assignment=settings.rpn_assignment,
        sampling=settings.rpn_sampling,
    )
    objectness, boxes = rpn_losses(*outputs, model.variant.strides, truths, rules, generator)
    return {"rpn_cls": objectness.sum(), "rpn_bbox": boxes.sum()}


def _proposals(
    model: Masa, outputs: tuple[list[Tensor], list[Tensor]], images: Tensor, settings: ProposalSettings
) -> list[Tensor]:
    height, width = images.shape[-2:]
    return [boxes for boxes, _ in rpn_proposals(*outputs, model.variant.strides, height, width, settings)]


def _check_lengths(num_images: int, ref_images: Tensor, *others: Sequence[object] | None) -> None:
    names = ("key_targets", "ref_targets", "key_proposals", "ref_proposals")
    for name, each in zip(("ref_images", *names), (ref_images, *others)):
        if each is not None and len(each) != num_images:
            raise ValueError(f"{name} has {len(each)} entries for {num_images} key images")
