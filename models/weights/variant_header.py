"""What a file of ours says about the variant of a model that it holds: its name, and all of its fields.

So a model that was trained with other settings loads by itself, also when the variant of that name is no longer what it
was. Headers come from anywhere: what they say is checked, and bounded, before anything is built from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from trackmill.models.weights.metadata import to_header
from trackmill.schemas.errors import InputError
from trackmill.schemas.names import shortened

Variant = TypeVar("Variant")
"""A frozen dataclass with a field `name`; fields may be such dataclasses, without a name."""

LARGEST = 65_536
"""Of any whole number in a header: more is no variant but damage."""
MOST_LAYERS = 64


def variant_metadata(variant: Any, **more: str) -> dict[str, str]:
    """Metadata for safetensors files of `variant`."""
    fields = dataclasses.asdict(variant)
    return to_header({"variant": fields.pop("name"), "fields": fields, **more})


def described_variant(
    metadata: Mapping[str, Any], where: str, kind: type[Variant], known: Mapping[str, Variant]
) -> Variant | None:
    """The variant that a header of ours describes; None where it says nothing of a model of this kind.

    Args:
        metadata: what `from_header` gave.
        where: the file, for messages.
        kind: class of the variants.
        known: by name; fields that a header leaves out are theirs.

    Raises:
        ValueError: it names fields that there are not, or values that cannot be; says which.
    """
    name, fields = metadata.get("variant"), metadata.get("fields")
    if not isinstance(name, str) or (name not in known and not isinstance(fields, dict)):
        return None
    fields = {} if fields is None else fields
    if not isinstance(fields, dict):
        raise InputError(f"{where}: its header should name the fields of {shortened(name, 60)}, found {fields!r:.60}")
    _check_fields(fields, kind, where, ("name",))
    base: dict[str, Any] = dataclasses.asdict(known[name]) if name in known else {"name": name}  # type: ignore[call-overload]
    try:
        return TypeAdapter(kind).validate_python({**base, **fields})
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
        most = MOST_LAYERS if field.endswith("layers") or field == "extra_levels" else LARGEST
        if any(isinstance(each, int) and abs(each) > most for each in numbers) or len(numbers) > MOST_LAYERS:
            raise InputError(f"{where}: its header says {field} = {value!r:.60}, which is more than {most}")
