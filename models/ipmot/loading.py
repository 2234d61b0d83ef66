"""From a name and weights to an IP-MOT ready for use: whole files of ours or of MeMOTR, or a detector's part alone."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping

import torch
from torch import Tensor

from trackmill.models.backbones.official import WORDS, load_backbone, load_packaged, recognise_backbone
from trackmill.models.device import choose_device
from trackmill.models.ipmot.detector_names import layout_of, to_own_names
from trackmill.models.ipmot.metadata import (
    DETECTOR,
    MEMOTR_UPDATE,
    OUR_UPDATE,
    is_memotr,
    is_ours,
    shapes_of,
    variant_of,
)
from trackmill.models.ipmot.metadata import metadata_of as metadata_of
from trackmill.models.ipmot.metadata import recognise as recognise
from trackmill.models.ipmot.model import IpMot
from trackmill.models.ipmot.variants import VARIANTS, Variant
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
    detector_weights: Source | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> IpMot:
    """See `trackmill.models.ipmot.load`."""
    device = choose_device(str(device))
    if not isinstance(variant, Variant) and weights is None:
        find_variant(variant)  # raises, before any file is read
    given = _read(weights)
    if isinstance(given, Checkpoint) and (is_ours(given) or is_memotr(given)):
        if detector_weights is not None:
            raise InputError(f"{given.where}: holds its detector already; give no weights of a detector beside it")
        return _whole(variant, given, device, seed)
    if given is not None and detector_weights is not None:
        raise InputError(f"{_where(given)}: weights of a detector, and others beside them; give one of both")
    chosen = find_variant(variant)
    model = _built(chosen, seed)
    part = given if given is not None else _read(detector_weights)
    if part is not None:
        what = start_detector(model, part)
        if detector_weights is None:
            log.warning("%s: these are weights of %s alone: all else of %s is fresh", _where(part), what, chosen.name)
    return model.to(device).eval()


def start_detector(model: IpMot, weights: Source) -> str:
    """Copy a detector's weights into a tracker, all or none; the rest of it stays as it is.

    Args:
        model: on any device.
        weights: a DAB-Deformable-DETR or Deformable-DETR in the published COCO layout (of whose 91 classes the person's
            row is taken) or in MeMOTR's; a whole tracker of ours or of MeMOTR, whose detector is taken; or a backbone's
            official file, or the word for a packaged one.

    Returns:
        What it was, in words.

    Raises:
        ValueError: none of these, other conventions or sizes than the variant's; says what to do.
    """
    part, variant = _read(weights), model.variant
    detector = model.detector
    if isinstance(part, str):
        load_packaged(detector.whole_backbone, part, for_whom=variant.name)
        return f'the backbone ("{part}")'
    assert part is not None
    if is_ours(part):
        said = variant_of(part.metadata, part.where)
        if said is not None:
            _check_conventions(said.detector.conventions, variant, part.where)
        own = {name.removeprefix(DETECTOR): each for name, each in part.items() if name.startswith(DETECTOR)}
        fit(detector, Checkpoint(tensors=own, where=part.where), f"the detector of {variant.name}")
        return "a detector"
    layout = layout_of(part)
    if layout is None:
        found = recognise_backbone(part)
        _refuse_other_models(part, variant.name)
        if found is None:
            names = ", ".join(list(part)[:3])
            raise InputError(
                f"{part.where}: no detector known in {len(part):,} tensors ({names}, ...); {variant.name} takes a file "
                "of ours, a DAB-Deformable-DETR or Deformable-DETR in the published COCO layout, or MeMOTR's"
            )
        load_backbone(detector.whole_backbone, part, for_whom=variant.name, found=found)
        return f"a backbone ({found.what})"
    _check_conventions(layout, variant, part.where)
    bare = {name: each for name, each in part.items() if not name.startswith(MEMOTR_UPDATE)}
    own = to_own_names(Checkpoint(tensors=bare, where=part.where), detector.sizes)
    fit(detector, Checkpoint(tensors=own, where=part.where), f"the detector of {variant.name}")
    return "a detector"


def find_variant(variant: str | Variant) -> Variant:
    """The variant of that name.

    Raises:
        ValueError: there is none; names the nearest.
    """
    if isinstance(variant, Variant):
        return variant
    if variant not in VARIANTS:
        advice = nearest(str(variant), VARIANTS) or f"known: {', '.join(VARIANTS)}"
        raise InputError(f"there is no variant {variant!r}; {advice}")
    return VARIANTS[variant]


def _read(weights: Source | None) -> Checkpoint | str | None:
    if weights is None or (isinstance(weights, str) and weights in WORDS):
        return weights
    if not isinstance(weights, str | os.PathLike | Mapping):
        raise InputError(f"weights: should be a path, a URL or tensors by name, found {type(weights).__name__}")
    return as_checkpoint(weights)


def _where(part: Checkpoint | str) -> str:
    return part.where if isinstance(part, Checkpoint) else f'"{part}"'


def _whole(variant: str | Variant, given: Checkpoint, device: str | torch.device, seed: int) -> IpMot:
    """A whole file, in the form that it says it was trained in."""
    chosen = _chosen(variant, given)
    if is_memotr(given):
        given = _from_memotr(given, chosen)
    elif chosen.embedding and not any(name.startswith("embedding.") for name in given):
        # Tracking never asks for it, so files may leave it out.
        chosen = dataclasses.replace(chosen, embedding=0)
    _check_shapes(given, chosen)
    model = _built(chosen, seed)
    fit(model, given, chosen.name)
    return model.to(device).eval()


def _chosen(variant: str | Variant, given: Checkpoint) -> Variant:
    asked = variant.name if isinstance(variant, Variant) else variant
    if is_memotr(given):
        chosen = find_variant(variant)
        if chosen.track_update != "memotr":
            raise InputError(
                f"{given.where}: these weights look like memotr, not {asked}: load them as memotr, or give them as "
                "the detector's to begin with their detector alone"
            )
        _check_conventions("memotr", chosen, given.where)
        return chosen
    said = variant_of(given.metadata, given.where)
    if said is None:
        chosen = find_variant(variant)
        fits = all(shapes_of(chosen).get(name) == tuple(each.shape) for name, each in given.items())
        found = chosen.name if fits else recognise(given)
        if found is None:
            _refuse_other_models(given, chosen.name)
    else:
        chosen, found = said, said.name
    if found is not None and found != asked:
        raise InputError(f"{given.where}: these weights look like {found}, not {asked}: load them as {found}")
    if said is not None and isinstance(variant, Variant) and variant != said:
        # What is not seen in shapes would change every number in silence.
        _check_conventions(said.detector.conventions, variant, given.where)
        log.warning("%s: trained with other settings of %s: %s", given.where, asked, _differences(said, variant))
        return variant
    return chosen


def _refuse_other_models(given: Checkpoint, asked: str) -> None:
    """Say whose weights these are, where another model of the registry knows them as its own.

    Raises:
        InputError: names the model.
    """
    from trackmill.models.registry import recognise as whose

    found = whose(given)
    if found is not None and found != asked:
        raise InputError(f"{given.where}: these weights look like {found}, not {asked}: load them as {found}")


def _differences(said: Variant, now: Variant) -> str:
    pairs = [
        *((name, getattr(said, name), getattr(now, name)) for name in vars(said) if name != "detector"),
        *((f"detector.{name}", value, getattr(now.detector, name)) for name, value in vars(said.detector).items()),
    ]
    return ", ".join(f"{name} = {then!r}, now {value!r}" for name, then, value in pairs if then != value)


def _check_conventions(found: str, variant: Variant, where: str) -> None:
    """Refuse weights that were trained with other conventions: they would fit and find nothing."""
    wanted = variant.detector.conventions
    if found != wanted:
        raise InputError(
            f'{where}: these weights go with conventions = "{found}", and {variant.name} has "{wanted}": set '
            f'detector.conventions = "{found}" in the variant, or take other weights'
        )


def _from_memotr(given: Checkpoint, variant: Variant) -> Checkpoint:
    """MeMOTR's names to ours."""
    detector = {name: each for name, each in given.items() if not name.startswith(MEMOTR_UPDATE)}
    own = to_own_names(Checkpoint(tensors=detector, where=given.where), variant.detector)
    tensors = {f"{DETECTOR}{name}": each for name, each in own.items()}
    for name, each in given.items():
        if name.startswith(MEMOTR_UPDATE):
            tensors[OUR_UPDATE + name.removeprefix(MEMOTR_UPDATE)] = each
    return Checkpoint(tensors=tensors, where=given.where)


def _check_shapes(whole: Checkpoint, variant: Variant) -> None:
    """Refuse what does not fit before memory is taken for the model: a header may ask for any size."""
    try:
        expected = shapes_of(variant)
    except ValueError as error:
        raise InputError(f"{whole.where}: its header is not one of ours: {error}") from None
    check_shapes(whole, expected, variant.name)


def _built(variant: Variant, seed: int) -> IpMot:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return IpMot(variant)
