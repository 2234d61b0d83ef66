"""What a file of ours says about itself, and whose tensors are whose, by names and shapes alone.

See `trackmill.models.weights.variant_header`: a model that was trained with other sizes loads by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from trackmill.models.ipmot.variants import VARIANTS, Variant
from trackmill.models.weights.variant_header import described_variant, variant_metadata

if TYPE_CHECKING:
    from torch import Tensor

DETECTOR = "detector."
"""What stands before the detector's names in our files."""

MEMOTR_UPDATE, OUR_UPDATE = "query_updater.", "query_update."
"""What stands before the names of the query update: in MeMOTR's files, and in ours."""


def metadata_of(variant: Variant, **more: str) -> dict[str, str]:
    """Metadata for safetensors files of `variant`."""
    return variant_metadata(variant, **more)


def variant_of(metadata: Mapping[str, Any], where: str) -> Variant | None:
    """The variant that a header of ours describes; None where it says nothing of an IP-MOT.

    Raises:
        ValueError: it names fields that there are not, or values that cannot be; says which.
    """
    name = metadata.get("variant")
    fields = metadata.get("fields")
    if name not in VARIANTS and not (isinstance(fields, dict) and "detector" in fields):
        return None
    return described_variant(metadata, where, Variant, VARIANTS)


def is_ours(tensors: Mapping[str, Tensor]) -> bool:
    """Whether they have the names of our whole files."""
    return any(name.startswith(DETECTOR) for name in tensors)


def is_memotr(tensors: Mapping[str, Tensor]) -> bool:
    """Whether they are a whole tracker under the names of MeMOTR's published files."""
    return any(name.startswith(MEMOTR_UPDATE) for name in tensors)


def recognise(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the variant whose weights these are; None for others, such as a detector's alone.

    What the header says counts. Without one the variants are compared by names and shapes of their tensors.
    """
    if is_memotr(tensors):
        return "memotr"
    if not is_ours(tensors):
        return None
    said = variant_of(getattr(tensors, "metadata", {}), "the weights")
    if said is not None:
        return said.name
    given = {name: tuple(each.shape) for name, each in tensors.items()}
    for name, variant in VARIANTS.items():
        # The detect queries tell most variants apart before a network is built.
        if _detect_queries(variant) in given.items() and shapes_of(variant).items() >= given.items():
            return name
    return None


def _detect_queries(variant: Variant) -> tuple[str, tuple[int, ...]]:
    sizes = variant.detector
    if sizes.form == "dab":
        return f"{DETECTOR}tgt_embed.weight", (sizes.queries, sizes.hidden)
    return f"{DETECTOR}query_embed.weight", (sizes.queries, 2 * sizes.hidden)


@lru_cache(maxsize=32)
def shapes_of(variant: Variant) -> Mapping[str, tuple[int, ...]]:
    """Shape of each tensor in the state dict of a variant; no memory is taken for their values."""
    import torch

    from trackmill.models.ipmot.model import IpMot

    with torch.device("meta"):
        model = IpMot(variant)
    return {name: tuple(values.shape) for name, values in model.state_dict().items()}
