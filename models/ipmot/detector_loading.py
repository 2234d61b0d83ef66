"""From a checkpoint to a detector alone: whose it is, how large, with which conventions; then everything must fit."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trackmill.models.backbones.official import recognise_backbone
from trackmill.models.device import choose_device
from trackmill.models.ipmot.detector import DeformableDetr
from trackmill.models.ipmot.detector_names import ALIAS, layout_of, refuse_others, to_own_names
from trackmill.models.ipmot.metadata import DETECTOR, is_ours, variant_of
from trackmill.models.ipmot.sizes import Conventions, DetectorSizes, Form
from trackmill.models.weights.checkpoint import Checkpoint
from trackmill.models.weights.errors import BadWeights
from trackmill.models.weights.fit import fit
from trackmill.models.weights.read import as_checkpoint
from trackmill.schemas.errors import InputError
from trackmill.schemas.names import nearest

CONVENTIONS: tuple[Conventions, ...] = ("coco", "memotr")

WANTED = (
    "a DAB-Deformable-DETR or Deformable-DETR on ResNet-50 in the published COCO layout, a MeMOTR, or an IP-MOT of ours"
)

_HEADS = 8
"""Attention heads of all published detectors; shapes do not tell."""

_OLDER = r"transformer\.encoder\.layers\.\d+\.self_attn\.in_proj_"
"""Names of a DETR before deformable attention, whose others are the same."""

_RELATIVES = (
    # The beginning of a name, as a pattern, and what has such names.
    (_OLDER, "a DETR without deformable attention"),
    (r"model\.encoder\.layers\.|model\.decoder\.layers\.", "a DETR of transformers"),
    (r"(transformer\.)?decoder\.(layers\.0\.)?(cross_attentions|ca_)|bbox_head\.|neck\.convs\.", "a detector of mmdet"),
)


def load_detector(
    weights: str | os.PathLike[str] | Mapping[str, Tensor],
    conventions: Conventions = "coco",
    *,
    heads: int = _HEADS,
    device: str | torch.device = "cpu",
) -> DeformableDetr:
    """See `trackmill.models.ipmot.load_detector`."""
    place = choose_device(str(device))
    if conventions not in CONVENTIONS:
        advice = nearest(str(conventions), CONVENTIONS) or f"known: {', '.join(CONVENTIONS)}"
        raise InputError(f"no conventions are called {conventions!r}; {advice}")
    if not isinstance(weights, str | os.PathLike | Mapping):
        raise InputError(f"weights: should be a path, a URL or tensors by name, found {type(weights).__name__}")
    checkpoint = as_checkpoint(weights)
    if is_ours(checkpoint):
        checkpoint, sizes = _of_tracker(checkpoint, conventions, heads)
    else:
        _check_layout(checkpoint, conventions)
        sizes = sizes_of(checkpoint, conventions, heads)
    own = replace(checkpoint, tensors=to_own_names(checkpoint, sizes))
    with torch.device("meta"):  # no fresh weights are drawn: all are replaced, or it is an error
        detector = DeformableDetr(sizes)
    detector.to_empty(device="cpu")
    what = "DAB-Deformable-DETR" if sizes.form == "dab" else "Deformable-DETR"
    fit(detector, own, f"{what} of {sizes.queries} queries and {sizes.classes} classes")
    return detector.to(place).eval()


def sizes_of(checkpoint: Checkpoint, conventions: Conventions, heads: int = _HEADS) -> DetectorSizes:
    """How a detector is built whose tensors these are, as far as names and shapes tell.

    Args:
        checkpoint: in the COCO layout or MeMOTR's.
        conventions: of its training.
        heads: attention heads; sampling points follow from them.

    Raises:
        BadWeights: a tensor that tells is missing or of a strange shape, it is a two-stage detector, or one on another
            backbone than ResNet-50.
    """
    refuse_others(checkpoint)
    backbone = _backbone_of(checkpoint)
    levels, hidden = _shape(checkpoint, "transformer.level_embed", 2)
    sampled, _ = _shape(checkpoint, "transformer.decoder.layers.0.cross_attn.attention_weights.weight", 2)
    form, queries = _queries_of(checkpoint, hidden)
    feedforward, _ = _shape(checkpoint, "transformer.decoder.layers.0.linear1.weight", 2)
    classes, _ = _shape(checkpoint, "class_embed.0.weight", 2)
    if not isinstance(heads, int) or heads < 1 or levels < 1 or sampled % (heads * levels):
        raise BadWeights(
            f"{checkpoint.where}: {sampled} attention weights of a query cannot be those of {heads!r} heads and "
            f"{levels} levels; say how many heads it has (heads=...)"
        )
    layers = {part: _count(checkpoint, rf"transformer\.{part}\.layers\.(\d+)\.") for part in ("encoder", "decoder")}
    try:
        return DetectorSizes(
            form=form,
            backbone=backbone,
            hidden=hidden,
            heads=heads,
            points=sampled // (heads * levels),
            levels=levels,
            encoder_layers=layers["encoder"],
            decoder_layers=layers["decoder"],
            feedforward=feedforward,
            queries=queries,
            classes=classes,
            conventions=conventions,
            box_refinement=form == "dab" or _refines(checkpoint, layers["decoder"]),
        )
    except ValueError as error:
        raise BadWeights(f"{checkpoint.where}: no detector has such shapes: {error}") from None


def _of_tracker(checkpoint: Checkpoint, conventions: Conventions, heads: int) -> tuple[Checkpoint, DetectorSizes]:
    """The detector inside a tracker of ours, which says itself how it is built."""
    said = variant_of(checkpoint.metadata, checkpoint.where)
    own = {name.removeprefix(DETECTOR): each for name, each in checkpoint.items() if name.startswith(DETECTOR)}
    part = replace(checkpoint, tensors=own)
    if said is None:
        return part, sizes_of(part, conventions, heads)
    found = said.detector.conventions
    if found != conventions:
        raise InputError(f'{checkpoint.where}: was trained with conventions = "{found}", not "{conventions}"')
    return part, said.detector


def _check_layout(checkpoint: Checkpoint, conventions: Conventions) -> None:
    """Refuse what is no detector of this family, or was trained with other conventions."""
    layout = layout_of(checkpoint)
    if layout is None or any(re.match(_OLDER, name) for name in checkpoint):
        what = _what(checkpoint)
        names = ", ".join(list(checkpoint)[:3])
        found = f"this is {what}" if what else f"no detector known in {len(checkpoint):,} tensors ({names}, ...)"
        raise BadWeights(f"{checkpoint.where}: {found}; what is taken is {WANTED}")
    if layout != conventions:
        whose = "MeMOTR's" if layout == "memotr" else "the published COCO detectors'"
        raise InputError(
            f'{checkpoint.where}: its names are {whose}, which go with conventions="{layout}", not "{conventions}": '
            "weights find nothing under other conventions than those that they were trained with"
        )


def _what(checkpoint: Checkpoint) -> str | None:
    """What a checkpoint is that is no detector of this family, in words; None: unknown."""
    from trackmill.models.detic.recognising import recognise_other, recognise_variant
    from trackmill.models.registry import recognise

    for pattern, what in _RELATIVES:
        if any(re.match(pattern, name) for name in checkpoint):
            return what
    if name := recognise(checkpoint):
        return name
    if variant := recognise_variant(checkpoint):
        return f"a Detic ({variant})"
    backbone = recognise_backbone(checkpoint)
    return f"a backbone alone ({backbone.what})" if backbone else recognise_other(checkpoint)


def _backbone_of(checkpoint: Checkpoint) -> str:
    """`resnet50`, by the blocks of its third stage.

    Raises:
        BadWeights: another backbone, or none.
    """
    prefix = r"backbone\.(0\.body|backbone\.backbone)\."
    blocks = _count(checkpoint, rf"{prefix}layer3\.(?P<block>\d+)\.")
    if blocks == 6:
        return "resnet50"
    found = "no ResNet" if not blocks else "a ResNet-101" if blocks == 23 else f"a ResNet of {blocks} blocks in layer3"
    raise BadWeights(f"{checkpoint.where}: stands on {found}; detectors are read on ResNet-50")


def form_of(names: Iterable[str]) -> Form | None:
    """The form of a detector, by how its queries are called; None: they are not there."""
    known = set(names)
    if {"refpoint_embed.weight", "tgt_embed.weight", "det_anchor"} & known:
        return "dab"
    return "plain" if {"query_embed.weight", "det_query_embed"} & known else None


def _queries_of(checkpoint: Checkpoint, hidden: int) -> tuple[Form, int]:
    """The form, and the number of queries."""
    form = form_of(checkpoint) or "dab"
    names = ("refpoint_embed.weight", "det_anchor") if form == "dab" else ("query_embed.weight", "det_query_embed")
    name = names[1] if names[1] in checkpoint.tensors else names[0]
    queries, width = _shape(checkpoint, name, 2)
    if form == "plain" and width != 2 * hidden:
        raise BadWeights(
            f"{checkpoint.where}: {name} {(queries, width)} should be of width {2 * hidden}, position and content"
        )
    return form, queries


def _refines(checkpoint: Checkpoint, layers: int) -> bool:
    """Whether each layer has a head of its own: the files of detectors without refinement hold one head many times."""
    if any(name.startswith(ALIAS) for name in checkpoint):
        return True
    first, last = (checkpoint.tensors.get(f"bbox_embed.{index}.layers.0.weight") for index in (0, layers - 1))
    return layers > 1 and first is not None and last is not None and not torch.equal(first, last)


def _shape(checkpoint: Checkpoint, name: str, dimensions: int) -> Any:
    if name not in checkpoint.tensors:
        raise BadWeights(f"{checkpoint.where}: does not fit a Deformable-DETR: 1 missing: {name}")
    shape = tuple(checkpoint[name].shape)
    if len(shape) != dimensions:
        raise BadWeights(f"{checkpoint.where}: {name} has the shape {shape}, not {dimensions} dimensions")
    return shape


def _count(checkpoint: Checkpoint, pattern: str) -> int:
    """How many numbers stand at the last group of the pattern."""
    return len({found.groups()[-1] for name in checkpoint if (found := re.match(pattern, name))})
