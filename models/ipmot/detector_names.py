"""Names of the detector's tensors in published files: the COCO layout of DAB-DETR and Deformable-DETR, and MeMOTR's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from trackmill.models.ipmot.sizes import Conventions, DetectorSizes
from trackmill.models.weights.checkpoint import Checkpoint
from trackmill.models.weights.errors import BadWeights
from trackmill.models.weights.fit import listing

if TYPE_CHECKING:
    from torch import Tensor

PERSON_ROW = 1
"""Of the 91 class rows of the COCO files; row 0 is unused, the others are COCO's category ids."""

COCO_CLASSES = 91

TRACKER_PART = "query_updater."
"""What stands before the names of MeMOTR's query update, which is no part of the detector."""

ALIAS = "transformer.decoder.bbox_embed."
"""Under this name the box heads of refinement are in the files a second time."""

_BEGINNINGS = {
    "coco": {"backbone.0.body.": "backbone.0.body.", "input_proj.": "input_proj."},
    "memotr": {
        "backbone.backbone.backbone.": "backbone.0.body.",
        "feature_projs.": "input_proj.",
    },
}

_TWO_STAGE = ("transformer.enc_output", "transformer.pos_trans", "transformer.decoder.class_embed.")

_HEAD = re.compile(r"(class_embed|bbox_embed)\.(\d+)\.")


def layout_of(names: Iterable[str]) -> Conventions | None:
    """Whose names these are: `coco` for the published detectors, `memotr` for MeMOTR's trackers, None for others.

    Args:
        names: of tensors, such as a state dict or a checkpoint.
    """
    known = set(names)
    if any(name.startswith(("transformer.encoder.", "transformer.decoder.")) for name in known):
        if {"det_query_embed", "det_anchor"} & known or any(name.startswith("feature_projs.") for name in known):
            return "memotr"
        if any(name.startswith(("input_proj.", "tgt_embed.", "refpoint_embed.", "query_embed.")) for name in known):
            return "coco"
    return None


def to_own_names(checkpoint: Checkpoint, sizes: DetectorSizes) -> dict[str, Tensor]:
    """The tensors under the names of `trackmill.models.ipmot.detector.DeformableDetr`.

    Names that are not known stay, so that whoever loads them says so. What is in the file twice is compared, and taken
    once. Of 91 classes the row of people is taken where the detector has one class.

    Args:
        checkpoint: in one of the two layouts.
        sizes: of the detector that they are for.

    Raises:
        BadWeights: a two-stage detector or one with query patterns, or two copies of a head that differ.
    """
    refuse_others(checkpoint)
    layout = layout_of(checkpoint) or "coco"
    own: dict[str, Tensor] = {}
    for name, each in checkpoint.items():
        # The norms of the backbone are frozen and count nothing, and files of norms that once were trained do.
        if not name.startswith((TRACKER_PART, ALIAS)) and not name.endswith(".num_batches_tracked"):
            own[_own_name(name, layout, sizes)] = each
    _compare(checkpoint, {name: name.removeprefix("transformer.decoder.") for name in checkpoint if ALIAS in name})
    if not sizes.box_refinement:
        # All layers have one head, which the files hold once for each of them.
        others = {name: _HEAD.sub(r"\1.0.", name) for name in checkpoint if _HEAD.match(name)}
        _compare(checkpoint, others)
        own = {name: each for name, each in own.items() if name not in others or others[name] == name}
    if sizes.classes == 1:
        own = {name: _person(name, each) for name, each in own.items()}
    return own


def refuse_others(checkpoint: Checkpoint) -> None:
    """Refuse relatives that are not built here.

    Raises:
        BadWeights: says what the file is, and which files are taken instead.
    """
    wanted = "take the file of the one without it"
    if any(name.startswith(_TWO_STAGE) for name in checkpoint):
        raise BadWeights(f"{checkpoint.where}: a two-stage detector, which is not supported: {wanted}")
    if "patterns_embed.weight" in checkpoint:
        raise BadWeights(f"{checkpoint.where}: a detector with query patterns, which are not supported: {wanted}")


def _own_name(name: str, layout: Conventions, sizes: DetectorSizes) -> str:
    if layout == "memotr":
        if name == "det_anchor":
            return "refpoint_embed.weight"
        if name == "det_query_embed":
            return "tgt_embed.weight" if sizes.form == "dab" else "query_embed.weight"
    for beginning, ours in _BEGINNINGS[layout].items():
        if name.startswith(beginning):
            return ours + name.removeprefix(beginning)
    return name


def _person(name: str, values: Tensor) -> Tensor:
    if name.startswith("class_embed.") and values.ndim > 0 and len(values) == COCO_CLASSES:
        return values[PERSON_ROW : PERSON_ROW + 1]
    return values


def _compare(tensors: Mapping[str, Tensor], copies: Mapping[str, str]) -> None:
    """Refuse copies that are not equal to what they are a copy of; what is missing is named elsewhere."""
    pairs = [(name, tensors[name], tensors[other]) for name, other in copies.items() if other in tensors]
    apart = [name for name, copy, own in pairs if copy.shape != own.shape or not _same(copy, own)]
    if apart:
        where = tensors.where if isinstance(tensors, Checkpoint) else "the weights"
        found = listing("differing from their other copy", apart)
        raise BadWeights(f"{where}: {found}; the file was put together wrongly")


def _same(copy: Tensor, own: Tensor) -> bool:
    if copy.is_meta or own.is_meta or copy.layout != own.layout:
        return True  # there is nothing to compare; whoever loads them says so
    return copy.double().allclose(own.double(), rtol=0, atol=0, equal_nan=True)
