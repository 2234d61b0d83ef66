"""From a name and weights to a ScaleTrack ready for use: whole files of ours, or the backbone's part alone."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping

import torch
from torch import Tensor

from trackmill.models.backbones.official import (
    WORDS,
    OfficialBackbone,
    files_of,
    load_backbone,
    load_packaged,
    recognise_backbone,
    same_network,
)
from trackmill.models.masa.variants import recognise as recognise_masa
from trackmill.models.scaletrack.metadata import PREFIX, differing, recognise, shapes_of, variant_of
from trackmill.models.scaletrack.metadata import metadata_of as metadata_of
from trackmill.models.scaletrack.model import ScaleTrack
from trackmill.models.scaletrack.variants import VARIANTS, Variant
from trackmill.models.weights.checkpoint import Checkpoint
from trackmill.models.weights.fit import check_shapes, fit
from trackmill.models.weights.read import as_checkpoint
from trackmill.schemas.errors import InputError
from trackmill.schemas.names import nearest

log = logging.getLogger("trackmill")

Source = str | os.PathLike[str] | Mapping[str, Tensor]


def load_model(
    variant: str | Variant,
    weights: Source | None = None,
    *,
    backbone_weights: Source | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> ScaleTrack:
    """See `trackmill.models.scaletrack.load`."""
    whole, part = _sorted_out(variant, weights, backbone_weights)
    chosen = _chosen(variant, whole)
    if whole is not None:
        _check_shapes(whole, chosen)
        return _built(chosen, seed, device, whole)
    if part is None:
        return _built(chosen, seed, device)
    if isinstance(part, str):
        model = _built(chosen, seed, "cpu")
        load_packaged(model.backbone, part, for_whom=chosen.name)
        what = f'"{part}"'
    else:
        found = recognise_backbone(part)
        if not isinstance(variant, Variant):  # somebody's own says itself what it stands on
            chosen = _standing_on(chosen, found, part.where)
        if found is None or found.name != chosen.backbone:
            # Refused before anything large is built, if it is another backbone's altogether.
            _check_backbone(chosen, found, part)
        model = _built(chosen, seed, "cpu")
        what = load_backbone(model.backbone, part, for_whom=chosen.name, found=found)
    if backbone_weights is None:
        where = part.where if isinstance(part, Checkpoint) else part
        log.warning(
            "%s: these are weights of the backbone alone (%s): all else of %s is fresh", where, what, chosen.name
        )
    return model.to(device).eval()


def find_variant(variant: str | Variant) -> Variant:
    """The variant of that name.

    Raises:
        ValueError: there is none; names the nearest.
    """
    if isinstance(variant, Variant):
        return variant
    if variant not in VARIANTS:
        advice = nearest(variant, VARIANTS) or f"known: {', '.join(VARIANTS)}"
        raise InputError(f"there is no variant {variant!r}; {advice}")
    return VARIANTS[variant]


def _sorted_out(
    variant: str | Variant, weights: Source | None, backbone_weights: Source | None
) -> tuple[Checkpoint | None, Checkpoint | str | None]:
    """A whole file of ours, or what is of the backbone alone: a file of it or a word."""
    if not isinstance(variant, Variant) and variant not in VARIANTS and weights is None:
        find_variant(variant)  # raises, before any file is read
    given = _read(weights)
    if isinstance(given, Checkpoint) and any(name.startswith(PREFIX) for name in given):
        if backbone_weights is not None:
            raise InputError(f"{given.where}: holds its backbone already; give no weights of a backbone beside it")
        return given, None
    other = _read(backbone_weights)
    if given is not None and other is not None:
        where = given.where if isinstance(given, Checkpoint) else f'"{given}"'
        raise InputError(f"{where}: weights of a backbone, and others beside them; give one of both")
    if isinstance(other, Checkpoint) and any(name.startswith(PREFIX) for name in other):
        # The backbone of a whole file of ours.
        own = {name.removeprefix(PREFIX): each for name, each in other.items() if name.startswith(PREFIX)}
        other = dataclasses.replace(other, tensors=own, metadata={})
    return None, given if given is not None else other


def _read(weights: Source | None) -> Checkpoint | str | None:
    if weights is None or (isinstance(weights, str) and weights in WORDS):
        return weights
    return as_checkpoint(weights)


def _chosen(variant: str | Variant, whole: Checkpoint | None) -> Variant:
    """The variant to build: as asked for, in the form that a whole file says it was trained in."""
    if whole is None:
        return find_variant(variant)
    asked = variant.name if isinstance(variant, Variant) else variant
    said = variant_of(whole.metadata, whole.where)
    if said is None:
        chosen = find_variant(variant)
        fits = shapes_of(chosen) == {name: tuple(each.shape) for name, each in whole.items()}
        found = chosen.name if fits else recognise(whole)
    else:
        chosen, found = said, said.name
    if found is not None and found != asked:
        raise InputError(f"{whole.where}: these weights look like {found}, not {asked}: load them as {found}")
    if said is not None and isinstance(variant, Variant) and variant != said:
        fields = [
            each for each in {**differing(variant), **differing(said)} if getattr(said, each) != getattr(variant, each)
        ]
        shown = ", ".join(f"{each} = {getattr(said, each)!r}, now {getattr(variant, each)!r}" for each in fields)
        log.warning("%s: trained with other settings of %s: %s", whole.where, asked, shown)
        return variant
    return chosen


def _check_shapes(whole: Checkpoint, variant: Variant) -> None:
    """Refuse what does not fit before memory is taken for the model: a header may ask for any size."""
    try:
        expected = shapes_of(variant)
    except ValueError as error:
        raise InputError(f"{whole.where}: its header is not one of ours: {error}") from None
    check_shapes(whole, expected, variant.name)


def _built(variant: Variant, seed: int, device: str | torch.device, whole: Checkpoint | None = None) -> ScaleTrack:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ScaleTrack(variant)
    if whole is not None:
        fit(model, whole, variant.name)
    return model.to(device).eval()


def _standing_on(variant: Variant, found: OfficialBackbone | None, where: str) -> Variant:
    """The variant on the very backbone of a file, where this is a sister of its own."""
    if found is None or not _are_sisters(variant.backbone, found.name):
        return variant
    log.warning("%s: this is %s: %s stands on it, in place of %s", where, found.what, variant.name, variant.backbone)
    return dataclasses.replace(variant, backbone=found.name)


def _are_sisters(own: str, other: str) -> bool:
    """Whether they differ in registers alone (DINOv2), or are any two of one family (DINOv3)."""
    if not other or own == other:
        return False
    if "dinov3" in own and "dinov3" in other:
        return True
    return own.startswith("dinov2_") and own.removesuffix("_reg4") == other.removesuffix("_reg4")


def _check_backbone(variant: Variant, found: OfficialBackbone | None, part: Checkpoint) -> None:
    """Refuse what is no backbone, or not this variant's, before anything large is built."""
    wanted = f"{variant.name} stands on {variant.backbone} and takes {files_of(variant.backbone)}, or a file of ours"
    other = recognise_masa(part) or part.metadata.get("variant")
    if other is not None and (found is None or not found.what.startswith("Detic")):
        raise InputError(f"{part.where}: these weights look like {other}, not {variant.name}: load them as {other}")
    if found is None:
        names = ", ".join(list(part)[:3])
        raise InputError(f"{part.where}: no backbone known in {len(part):,} tensors ({names}, ...); {wanted}")
    if not same_network(found.name, variant.backbone):
        if _are_sisters(variant.backbone, found.name):
            raise InputError(f'{part.where}: this is {found.what}; {wanted}; or set its backbone to "{found.name}"')
        others = [name for name, each in VARIANTS.items() if same_network(found.name, each.backbone)]
        mend = f"; it goes with {' or '.join(others)}" if others else ""
        raise InputError(f"{part.where}: this is {found.what}; {wanted}{mend}")
