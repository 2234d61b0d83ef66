"""What a file of ours says about itself: the name of its variant, and all of its fields.

See `trackmill.models.weights.variant_header`: a model that was trained with a longer memory or fewer layers loads by
itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from trackmill.models.scaletrack.variants import VARIANTS, Variant
from trackmill.models.weights.variant_header import described_variant, variant_metadata

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "backbone.network."
"""What stands before the backbone's names in our files."""

_FIELDS = {field.name: field for field in dataclasses.fields(Variant)}


def metadata_of(variant: Variant, **more: str) -> dict[str, str]:
    """Metadata for safetensors files of `variant`."""
    return variant_metadata(variant, **more)


def differing(variant: Variant) -> dict[str, Any]:
    """The fields in which a variant differs from the one that its name stands for; all, where there is none."""
    named = VARIANTS.get(variant.name)
    return {
        name: getattr(variant, name)
        for name in _FIELDS
        if name != "name" and (named is None or getattr(variant, name) != getattr(named, name))
    }


def variant_of(metadata: Mapping[str, Any], where: str) -> Variant | None:
    """The variant that a header of ours describes; None where it says nothing of a ScaleTrack.

    Raises:
        ValueError: it names fields that there are not, or values that cannot be; says which.
    """
    return described_variant(metadata, where, Variant, VARIANTS)


def recognise(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the variant whose weights these are; None for others, such as official weights of a backbone alone.

    What the header says counts. Without one the variants are compared by names and shapes of their tensors: the first
    one that fits, or else the first whose backbone does.
    """
    if not any(name.startswith(PREFIX) for name in tensors):
        return None
    said = variant_of(getattr(tensors, "metadata", {}), "the weights")
    if said is not None:
        return said.name
    given = {name: tuple(each.shape) for name, each in tensors.items()}
    alike = ""
    for name, variant in VARIANTS.items():
        expected = shapes_of(variant)
        if expected == given:
            return name
        backbone = {each: shape for each, shape in expected.items() if each.startswith(PREFIX)}
        if not alike and backbone.items() <= given.items():
            alike = name
    return alike or None


@lru_cache(maxsize=32)
def shapes_of(variant: Variant) -> Mapping[str, tuple[int, ...]]:
    """Shape of each tensor in the state dict of a variant; no memory is taken for their values."""
    import torch

    from trackmill.models.scaletrack.model import ScaleTrack

    with torch.device("meta"):
        model = ScaleTrack(variant)
    return {name: tuple(values.shape) for name, values in model.state_dict().items()}
