"""Weights into a model, all or none: every tensor must be known, be there, and have its shape."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Mapping

import torch
from torch import Tensor

from trackmill.models.backbones.lite0 import imagenet_lite0
from trackmill.models.masa.model import Masa
from trackmill.models.masa.variants import VARIANTS, Variant
from trackmill.models.weights.read import Checkpoint, read_checkpoint, state_dict_of
from trackmill.schemas.errors import InputError

IMAGENET = "imagenet"
"""What `weights` may say for masa_lite0."""

_FOLLOWS = (".relative_position_index", ".num_batches_tracked")
"""Buffers that follow from the architecture, or that nothing reads: they may be absent."""

_RELATIVES = {
    "image_encoder.pos_embed": "a plain SAM checkpoint",
    "backbone.bottom_up.patch_embed.proj.weight": "a plain Detic checkpoint",
    "backbone.stages.0.blocks.0.norm1.weight": "a plain detector with a Swin backbone",
    "fc.weight": "an ImageNet classifier",
}
"""Keys of files that are easily taken for MASA's."""

_SHOWN = 8


def load_model(
    variant: str | Variant,
    weights: str | os.PathLike[str] | Mapping[str, Tensor] | Checkpoint | None,
    *,
    compatible_offsets: bool | None,
    device: str | torch.device,
    seed: int,
) -> Masa:
    """See `trackmill.models.masa.load`; takes a checkpoint that was already read, too."""
    chosen = find_variant(variant)
    if weights == IMAGENET and chosen.backbone != "efficientnet_lite0_tensorflow":
        raise InputError(f'weights="{IMAGENET}" is for masa_lite0; give {chosen.name} a path, a URL or a state dict')
    checkpoint = None if weights is None or weights == IMAGENET else _checkpoint(weights)
    if checkpoint is not None:
        check_variant(checkpoint, chosen)
        if compatible_offsets is None:
            compatible_offsets = checkpoint.metadata.get("compatible_offsets")
    if compatible_offsets is not None:
        chosen = dataclasses.replace(chosen, compatible_offsets=compatible_offsets)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Masa(chosen)
    if weights == IMAGENET:
        pretrained = imagenet_lite0()
        model.backbone.load_state_dict({name: pretrained[name] for name in model.backbone.state_dict()})
    if checkpoint is not None:
        fit(model, checkpoint)
    return model.to(device).eval()


def _checkpoint(weights: str | os.PathLike[str] | Mapping[str, Tensor] | Checkpoint) -> Checkpoint:
    if isinstance(weights, Checkpoint):
        return weights
    if isinstance(weights, Mapping):
        return Checkpoint(tensors=state_dict_of(weights))
    return read_checkpoint(weights)


def find_variant(variant: str | Variant) -> Variant:
    """The variant of that name.

    Raises:
        ValueError: there is none; names the nearest.
    """
    if isinstance(variant, Variant):
        return variant
    if variant not in VARIANTS:
        near = difflib.get_close_matches(variant, VARIANTS, n=1)
        advice = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"there is no variant {variant!r}: {advice}known are {', '.join(VARIANTS)}")
    return VARIANTS[variant]


def recognise(state: Mapping[str, Tensor]) -> str | None:
    """Name of the variant whose weights these are, as far as one key and its shape tell; None for others."""
    for variant in VARIANTS.values():
        key, shape = variant.fingerprint
        if key in state and tuple(state[key].shape) == shape:
            return variant.name
    return None


def check_variant(checkpoint: Checkpoint, variant: Variant) -> None:
    """Find out at once, before anything large is built, that weights belong to something else.

    Raises:
        ValueError: they do; says to what.
    """
    found = recognise(checkpoint.tensors) or checkpoint.metadata.get("variant")
    if found is not None and found != variant.name:
        raise InputError(
            f"{checkpoint.where}: these weights look like {found}, not {variant.name}: load them as {found}"
        )
    for key, what in _RELATIVES.items():
        if found is None and key in checkpoint.tensors:
            raise InputError(f"{checkpoint.where}: these weights look like {what}, not {variant.name} of MASA")


def fit(model: Masa, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint's tensors into `model`; on an error the model is as before.

    Entries of the detector around a frozen backbone (`Variant.aside`) are known and left out.

    Raises:
        ValueError: tensors are missing, unexpected or of another shape or kind; names them.
    """
    variant, expected = model.variant, model.state_dict()
    given = {name: values for name, values in checkpoint.tensors.items() if not name.startswith(variant.aside)}
    problems = [
        _listing("missing", [name for name in expected if name not in given and not name.endswith(_FOLLOWS)]),
        _listing("unexpected", [name for name in given if name not in expected]),
        _listing(
            "of another shape",
            [
                f"{name} {tuple(given[name].shape)} instead of {tuple(expected[name].shape)}"
                for name in expected
                if name in given and given[name].shape != expected[name].shape
            ],
        ),
        _listing(
            "of another kind",
            [
                f"{name} {given[name].dtype} instead of {expected[name].dtype}"
                for name in expected
                if name in given and given[name].is_floating_point() != expected[name].is_floating_point()
            ],
        ),
    ]
    if not any(problems):
        # The numbering of pairs is not loaded but computed; a table made for another one would fit and mean nothing.
        indices = [name for name in given if name.endswith(".relative_position_index")]
        odd = [name for name in indices if not torch.equal(given[name].to(expected[name]), expected[name])]
        problems = [_listing("numbered in another order", odd)]
    if any(problems):
        raise InputError(f"{checkpoint.where}: does not fit {variant.name}: " + "; ".join(filter(None, problems)))
    model.load_state_dict({**expected, **given}, strict=True)


def _listing(what: str, names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"{len(names)} {what}: {shown}" if names else ""
