"""From a variant and weights to a ScaleTrack ready for use."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trackmill.models.backbones.official import WORDS, load_backbone, load_packaged, recognise_backbone
from trackmill.models.scaletrack.model import ScaleTrack
from trackmill.models.scaletrack.variants import VARIANTS, Variant
from trackmill.models.weights.checkpoint import Checkpoint
from trackmill.models.weights.fit import fit
from trackmill.models.weights.metadata import to_header
from trackmill.models.weights.read import as_checkpoint
from trackmill.schemas.errors import InputError
from trackmill.schemas.names import nearest

Source = str | os.PathLike[str] | Mapping[str, Tensor] | None
"""A path, tensors by name, or nothing."""


def load_model(
    variant: str | Variant,
    weights: Source = None,
    *,
    backbone_weights: Source = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> ScaleTrack:
    """A network in evaluation mode.

    Args:
        variant: a name, with the changes that the weights' file knows of; or the fields themselves.
        weights: ours, whole; or official weights of the backbone alone, the rest is fresh then.
        backbone_weights: official weights of the backbone, or a word of `WORDS`.
        device: where it is put.
        seed: of what is fresh. torch's own random state is as before afterwards.

    Raises:
        ValueError: no such variant, or weights that do not fit; names the file.
    """
    checkpoint = None if weights is None else as_checkpoint(weights)
    chosen = _find_variant(variant, checkpoint)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ScaleTrack(chosen)
    if isinstance(backbone_weights, str) and backbone_weights in WORDS:
        load_packaged(model.backbone, backbone_weights, for_whom=chosen.name)
    elif backbone_weights is not None:
        load_backbone(model.backbone, as_checkpoint(backbone_weights), for_whom=chosen.name)
    if checkpoint is not None:
        _fill(model, checkpoint)
    return model.to(device).eval()


def metadata_of(variant: Variant, **more: str) -> dict[str, str]:
    """Metadata for safetensors files of `variant`: its name, and which of its fields differ from those of that name."""
    return to_header({"variant": variant.name, "changes": changes_of(variant), **more})


def changes_of(variant: Variant) -> dict[str, Any]:
    """Fields that differ from the variant of that name."""
    usual = VARIANTS[variant.name]
    fields = [each.name for each in dataclasses.fields(variant)]
    return {name: getattr(variant, name) for name in fields if getattr(variant, name) != getattr(usual, name)}


def _find_variant(variant: str | Variant, checkpoint: Checkpoint | None) -> Variant:
    if isinstance(variant, Variant):
        return variant
    if variant not in VARIANTS:
        advice = nearest(variant, VARIANTS) or f"known: {', '.join(VARIANTS)}"
        raise InputError(f"there is no variant {variant!r}; {advice}")
    facts = {} if checkpoint is None else checkpoint.metadata
    found = facts.get("variant", variant)
    if checkpoint is not None and found != variant:
        raise InputError(f"{checkpoint.where}: these weights are of {found}, not {variant}: load them as {found}")
    changes = facts.get("changes", {})
    known = {each.name for each in dataclasses.fields(Variant)} - {"name"}
    if not isinstance(changes, dict) or not changes.keys() <= known:
        where = checkpoint.where if checkpoint is not None else variant
        raise InputError(f"{where}: its changes of the variant are not known here: {str(changes)[:80]}")
    values: dict[str, Any] = {}
    for name, value in changes.items():
        values[name] = tuple(value) if isinstance(value, list) else value
    try:
        return dataclasses.replace(VARIANTS[variant], **values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{variant}: the changes in the weights' file do not fit: {error}") from None


def _fill(model: ScaleTrack, checkpoint: Checkpoint) -> None:
    found = recognise_backbone(checkpoint.tensors)
    if found is None:
        fit(model, checkpoint, model.variant.name)
        return
    what = load_backbone(model.backbone, checkpoint, for_whom=model.variant.name, found=found)
    warnings.warn(
        f"{checkpoint.where}: this is {what}, the backbone alone: all else of {model.variant.name} is untrained",
        stacklevel=3,
    )
