"""From a name and weights to a MASA ready for use; other models' weights are recognised before anything is built."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

import torch
from torch import Tensor

from trackmill.models.backbones.lite0 import imagenet_lite0
from trackmill.models.masa.model import Masa
from trackmill.models.masa.variants import VARIANTS, Variant, recognise
from trackmill.models.weights.checkpoint import Checkpoint
from trackmill.models.weights.fit import fit
from trackmill.models.weights.read import as_checkpoint
from trackmill.schemas.errors import InputError
from trackmill.schemas.names import nearest

IMAGENET = "imagenet"
"""What `weights` may say for the variants on EfficientNet-Lite0."""

_DETIC = "a plain Detic checkpoint"

_RELATIVES = {
    "image_encoder.pos_embed": "a plain SAM checkpoint",
    "backbone.bottom_up.patch_embed.proj.weight": _DETIC,
    "backbone.bottom_up.base.conv1.weight": _DETIC,
    "roi_head.bbox_head.0.fc_cls.linear.weight": _DETIC,
    "backbone.stages.0.blocks.0.norm1.weight": "a plain detector with a Swin backbone",
    "fc.weight": "an ImageNet classifier",
}
"""Keys of files that are easily taken for MASA's."""

_MENDS = {
    _DETIC: "; it finds objects as --detections detic:FILE, and training starts from it as model.backbone_weights",
}
"""What such a file is good for."""


def load_model(
    variant: str | Variant,
    weights: str | os.PathLike[str] | Mapping[str, Tensor] | None,
    *,
    compatible_offsets: bool | None,
    device: str | torch.device,
    seed: int,
) -> Masa:
    """See `trackmill.models.masa.load`."""
    chosen = find_variant(variant)
    imagenet = isinstance(weights, str) and weights == IMAGENET
    if imagenet and chosen.backbone != "efficientnet_lite0_tensorflow":
        raise InputError(
            f'weights="{IMAGENET}" is for masa_lite0 and masa_lite0_colour; give {chosen.name} a path or a state dict'
        )
    checkpoint = None if weights is None or imagenet else as_checkpoint(weights)
    if checkpoint is not None:
        check_variant(checkpoint, chosen)
        if compatible_offsets is None:
            compatible_offsets = checkpoint.metadata.get("compatible_offsets")
    if compatible_offsets is not None:
        chosen = dataclasses.replace(chosen, compatible_offsets=compatible_offsets)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Masa(chosen)
    if imagenet:
        pretrained = imagenet_lite0()
        model.backbone.load_state_dict({name: pretrained[name] for name in model.backbone.state_dict()})
    if checkpoint is not None:
        fit_variant(model, checkpoint)
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


def fit_variant(model: Masa, checkpoint: Checkpoint) -> None:
    """`trackmill.models.weights.fit.fit`; entries of the detector around a frozen backbone are left out."""
    fit(model, checkpoint, model.variant.name, set_aside=model.variant.aside)


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
            mend = _MENDS.get(what, "")
            raise InputError(f"{checkpoint.where}: these weights look like {what}, not {variant.name} of MASA{mend}")
