"""All losses of one training step of MASA, for a batch of pictures with two views each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from trackmill.models.masa.losses.assigning import (
    ROI_ASSIGNMENT,
    RPN_ASSIGNMENT,
    TRACK_ASSIGNMENT,
    AssignSettings,
    assign,
)
from trackmill.models.masa.losses.auxiliary import margin_loss
from trackmill.models.masa.losses.contrastive import CONTRASTS
from trackmill.models.masa.losses.detection import SMOOTH_L1_BETA, RpnLossSettings, roi_losses, rpn_losses
from trackmill.models.masa.losses.pairing import ViewSamples, pair_telemetry, pair_views
from trackmill.models.masa.losses.sampling import (
    ROI_SAMPLING,
    RPN_SAMPLING,
    TRACK_SAMPLING,
    Samples,
    SampleSettings,
    sample,
)
from trackmill.models.masa.rpn_inference import KEY_PROPOSALS, TEST_PROPOSALS, RpnSettings, rpn_proposals
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    from trackmill.models.masa.model import Masa


@dataclass(frozen=True, kw_only=True, eq=False)
class Targets:
    """The objects of one view.

    Args:
        boxes: (G, 4) float32 xyxy in pixels of the view, each with an area above 0.
        ids: (G,) int64; equal ids above 0 are the same object in both views, an id of 0 matches nothing.
        groups: names of the videos or files whose pixels are in the view; only for `negatives = "batch"`.

    Raises:
        ValueError: shapes do not fit, or a box is empty or not finite.
    """

    boxes: Tensor
    ids: Tensor
    groups: tuple[str, ...] = ()

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
    """Which losses are computed, over which boxes. Defaults: the released training configuration.

    Args:
        contrast: form of the contrastive loss, `released` or `paper`, see `losses.contrastive`.
        auxiliary_weight: weight of the margin loss (`losses.auxiliary`); 0 leaves it out.
        detection: trains the proposal head and the object prior head too. False: only the track losses are computed, on
            the boxes of the objects without proposals, from `Masa.track_features`.
        negatives: `pair`: negatives are the other samples of the same image's reference view. `batch`: those of all
            images of the batch, except images that share a group; the mean is then over all rows of the batch. Where
            there are several ranks, the batch is that of all of them, so their number changes nothing.
        ignore_iou: a sample of another object whose IoU with an object is above this, in the reference view, is neither
            its positive nor its negative, because proposals are often parts of each other. 1 (released) ignores none.
        symmetric: also compare reference boxes with the key view; the track losses are the means of both directions.
        key_proposals, ref_proposals: how the proposals of each view are chosen.
        rpn_assignment, roi_assignment, track_assignment: how boxes are assigned to objects.
        rpn_sampling, roi_sampling, track_sampling: how many of the assigned boxes are sampled.

    Raises:
        ValueError: `contrast` or `negatives` is unknown, `ignore_iou` outside 0..1.
    """

    contrast: Literal["released", "paper"] = "released"
    auxiliary_weight: float = 1.0
    detection: bool = True
    negatives: Literal["pair", "batch"] = "pair"
    ignore_iou: float = 1.0
    symmetric: bool = False
    key_proposals: RpnSettings = KEY_PROPOSALS
    ref_proposals: RpnSettings = TEST_PROPOSALS
    rpn_assignment: AssignSettings = RPN_ASSIGNMENT
    roi_assignment: AssignSettings = ROI_ASSIGNMENT
    track_assignment: AssignSettings = TRACK_ASSIGNMENT
    rpn_sampling: SampleSettings = RPN_SAMPLING
    roi_sampling: SampleSettings = ROI_SAMPLING
    track_sampling: SampleSettings = TRACK_SAMPLING

    def __post_init__(self) -> None:
        if self.contrast not in CONTRASTS:
            raise InputError(f"contrast = {self.contrast!r} is unknown; it is one of {', '.join(CONTRASTS)}")
        if self.negatives not in ("pair", "batch"):
            raise InputError(f"negatives = {self.negatives!r} is unknown; it is one of pair, batch")
        if not 0 <= self.ignore_iou <= 1:
            raise InputError(f"ignore_iou = {self.ignore_iou} should lie between 0 and 1")


RELEASED = LossSettings()
"""The settings that the official weights were trained with."""

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
    """Losses of a batch of B images with two views each. Key views go through the network first, then references.

    The caller sets the model's mode. Each of the two passes has its own batch statistics, as in the released code.
    Detection losses are computed on the key views only.

    Args:
        model: the model in training mode (its backbone keeps its own rule for batch norm).
        key_images, ref_images: (B, 3, H, W) float RGB 0..255.
        key_targets, ref_targets: the objects of each of the B views.
        generator: source of all random samples.
        settings: which losses, over which boxes.
        key_proposals, ref_proposals: B tensors of boxes (N_i, 4) that replace those of the proposal head.

    Returns:
        Scalars by name. With gradients: `rpn_cls`, `rpn_bbox`, `roi_cls`, `roi_bbox` (these four only with
        `settings.detection`), `track`, `track_aux` and their sum `total`. Detached, means over the images: `positives`,
        the number of key boxes whose object is in the reference view; `effective_negatives`, (sum w)^2 / sum w^2 over
        the softmax weights w of such a box's negatives, that is how many of them matter; `similarity_gap`, the mean
        cosine of positive pairs minus that of negative pairs. The last two are means over images that have positives
        and negatives, and 0 if there is none.

    Raises:
        ValueError: numbers of images, targets or proposals differ.
    """
    _check_lengths(len(key_images), ref_images, key_targets, ref_targets, key_proposals, ref_proposals)
    features = model.features if settings.detection else model.track_features
    key_levels, ref_levels = features(key_images), features(ref_images)
    device = key_levels[0].device
    key_truths = [each.boxes.to(device, torch.float32) for each in key_targets]
    ref_truths = [each.boxes.to(device, torch.float32) for each in ref_targets]

    losses: dict[str, Tensor] = {}
    if settings.detection:
        outputs = model.rpn(key_levels)
        losses |= _rpn_losses(model, outputs, key_truths, settings, generator)
        if key_proposals is None:
            key_proposals = _proposals(model, outputs, key_images, settings.key_proposals)
        if ref_proposals is None:
            with torch.no_grad():
                outputs = model.rpn(ref_levels)
            ref_proposals = _proposals(model, outputs, ref_images, settings.ref_proposals)
        drawn = draw_samples(key_proposals, key_truths, settings.roi_assignment, settings.roi_sampling, generator)
        logits, deltas = model.roi_head(model.pool(key_levels, [each.boxes for each in drawn]))
        losses["roi_cls"], losses["roi_bbox"] = roi_losses(logits, deltas, drawn, key_truths)

    rules = (settings.track_assignment, settings.track_sampling, generator)
    key_drawn = _track_samples(key_proposals, key_truths, *rules)
    ref_drawn = _track_samples(ref_proposals, ref_truths, *rules)
    key_boxes = [each.boxes if settings.symmetric else each.positives for each in key_drawn]
    key_views = _view_samples(key_targets, key_truths, key_drawn, model.embed_levels(key_levels, key_boxes))
    ref_boxes = [each.boxes for each in ref_drawn]
    ref_views = _view_samples(ref_targets, ref_truths, ref_drawn, model.embed_levels(ref_levels, ref_boxes))
    # Similarities reach dozens, and the loss takes exp(s): half precision is too coarse for that.
    with torch.autocast(device.type, enabled=False):
        tracks = [_track_losses(key_views, ref_views, settings)]
        if settings.symmetric:
            tracks.append(_track_losses(ref_views, key_views, settings))
        losses["track"] = torch.stack([each["track"] for each in tracks]).mean()
        losses["track_aux"] = torch.stack([each["track_aux"] for each in tracks]).mean()
    losses["total"] = torch.stack(list(losses.values())).sum()
    return losses | {name: tracks[0][name] for name in ("positives", "effective_negatives", "similarity_gap")}


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


def _track_samples(
    proposals: Sequence[Tensor] | None,
    truths: Sequence[Tensor],
    assignment: AssignSettings,
    sampling: SampleSettings,
    generator: torch.Generator,
) -> list[Samples]:
    """As `draw_samples`. Without proposals the samples are the boxes of all objects."""
    if proposals is not None:
        return draw_samples(proposals, truths, assignment, sampling, generator)
    drawn = []
    for boxes in truths:
        every = torch.arange(len(boxes), device=boxes.device)
        drawn.append(
            Samples(
                positives=boxes,
                negatives=boxes[:0],
                truths=every,
                positive_indices=every,
                negative_indices=every[:0],
            )
        )
    return drawn


def _view_samples(
    targets: Sequence[Targets], truths: Sequence[Tensor], drawn: Sequence[Samples], embeddings: Sequence[Tensor]
) -> list[ViewSamples]:
    return [
        ViewSamples(
            boxes=boxes,
            ids=target.ids.to(boxes.device),
            truths=samples.truths,
            samples=samples.boxes,
            embeddings=vectors.float(),
            groups=target.groups,
        )
        for target, boxes, samples, vectors in zip(targets, truths, drawn, embeddings)
    ]


def _track_losses(
    rows: Sequence[ViewSamples], columns: Sequence[ViewSamples], settings: LossSettings
) -> dict[str, Tensor]:
    """Both track losses and their telemetry in one direction."""
    pairs = pair_views(rows, columns, settings.negatives, settings.ignore_iou)
    contrast = CONTRASTS[settings.contrast]
    track = torch.stack([contrast(each.rows, each.columns, each.targets, each.ignored) for each in pairs]).mean()
    if settings.auxiliary_weight:
        costs = [margin_loss(each.rows, each.columns, each.targets, each.ignored) for each in pairs]
        auxiliary = settings.auxiliary_weight * torch.stack(costs).mean()
    else:
        auxiliary = torch.zeros_like(track)
    telemetry = pair_telemetry(pairs)
    # With `negatives = "batch"` there is one `ContrastPairs` for all images; the mean is per image in either case.
    telemetry["positives"] = telemetry["positives"] * len(pairs) / sum(each.num_images for each in pairs)
    return {"track": track, "track_aux": auxiliary, **telemetry}


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
    model: Masa, outputs: tuple[list[Tensor], list[Tensor]], images: Tensor, settings: RpnSettings
) -> list[Tensor]:
    height, width = images.shape[-2:]
    return [boxes for boxes, _ in rpn_proposals(*outputs, model.variant.strides, height, width, settings)]


def _check_lengths(num_images: int, ref_images: Tensor, *others: Sequence[object] | None) -> None:
    names = ("key_targets", "ref_targets", "key_proposals", "ref_proposals")
    for name, each in zip(("ref_images", *names), (ref_images, *others)):
        if each is not None and len(each) != num_images:
            raise ValueError(f"{name} has {len(each)} entries for {num_images} key images")
