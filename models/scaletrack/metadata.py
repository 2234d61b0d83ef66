"""What a file of ours says about itself: the name of its variant, and all of its fields.

So a model that was trained with a longer memory or fewer layers loads by itself, also when the variant of that name is
no longer what it was. Headers come from anywhere: what they
say is checked, and bounded, before anything is built from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from trackmill.models.scaletrack.variants import VARIANTS, Variant
from trackmill.models.weights.metadata import to_header
from trackmill.schemas.errors import InputError
from trackmill.schemas.names import shortened

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "backbone.network."
"""What stands before the backbone's names in our files."""

_FIELDS = {field.name: field for field in dataclasses.fields(Variant)}
_LARGEST = 65_536
"""Of any whole number in a header: more is no variant but damage."""
_MOST_LAYERS = 64


def metadata_of(variant: Variant, **more: str) -> dict[str, str]:
    """Metadata for safetensors files of `variant`."""
    fields = dataclasses.asdict(variant)
    return to_header({"variant": fields.pop("name"), "fields": fields, **more})


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
    name, fields = metadata.get("variant"), metadata.get("fields")
    if not isinstance(name, str) or (name not in VARIANTS and not isinstance(fields, dict)):
        return None
    fields = {} if fields is None else fields
    if not isinstance(fields, dict):
        raise InputError(f"{where}: its header should name the fields of {shortened(name, 60)}, found {fields!r:.60}")
    _check_fields(fields, Variant, where, ("name",))
    base = dataclasses.asdict(VARIANTS[name]) if name in VARIANTS else {"name": name}
    try:
        return TypeAdapter(Variant).validate_python({**base, **fields})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "variant"
        text = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{where}: its header is not one of ours: {place}: {text}") from None


def _check_fields(fields: Mapping[str, Any], kind: Any, where: str, without: tuple[str, ...] = ()) -> None:
    """Refuse fields that there are not, and numbers beyond any sense.

    Raises:
        InputError: names the field.
    """
    known = {field.name for field in dataclasses.fields(kind)}
    types = get_type_hints(kind)
    for field, value in fields.items():
        if field not in known or field in without:
            raise InputError(
                f"{where}: made by another version of trackmill: its variant has the field {shortened(field, 60)!r}"
            )
        if isinstance(value, dict) and dataclasses.is_dataclass(types[field]):
            _check_fields(value, types[field], where)
            continue
        numbers = value if isinstance(value, list | tuple) else [value]
        most = _MOST_LAYERS if field.endswith("layers") or field == "extra_levels" else _LARGEST
        if any(isinstance(each, int) and abs(each) > most for each in numbers) or len(numbers) > _MOST_LAYERS:
            raise InputError(f"{where}: its header says {field} = {value!r:.60}, which is more than {most}")


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
