"""`model.variant` and `model.changes` of a recipe: a named variant of a network, with other values in some fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator

from trackmill.schemas.config import ConfigError
from trackmill.schemas.names import nearest

V = TypeVar("V")


def _dotted(values: Any, prefix: str = "") -> Any:
    """`{detector = {queries = 60}}`, which TOML makes of `detector.queries = 60`, as `{"detector.queries": 60}`."""
    if not isinstance(values, dict):
        return values
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _dotted(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


VariantChanges = Annotated[dict[str, bool | int | float | str | tuple[int, ...]], BeforeValidator(_dotted)]
"""Type of the key `model.changes`."""


def chosen_variant(
    name: str,
    changes: Mapping[str, Any],
    variants: Mapping[str, V],
    name_key: str = "model.variant",
    changes_key: str = "model.changes",
) -> V:
    """One of the variants, with its changes.

    Args:
        name: of the variant.
        changes: fields of the variant's dataclass by name. A field of a dataclass inside it is named with a dot, as in
            `detector.queries`.
        variants: all there are; dataclasses.
        name_key, changes_key: where a recipe says these two.

    Raises:
        ConfigError: unknown names or values that do not fit; names the key and the nearest.
    """
    if name not in variants:
        advice = nearest(name, variants) or f"known: {', '.join(variants)}"
        raise ConfigError(f"{name_key}: there is no variant {name!r}; {advice}")
    variant = variants[name]
    for key, value in changes.items():
        known = _fields("", variant)
        if key not in known:
            advice = nearest(key, known) or f"known: {', '.join(known)}"
            raise ConfigError(f"{changes_key}: variants have no field {key!r} to change; {advice}")
        if not _fits(value, known[key]):
            raise ConfigError(
                f"{changes_key}.{key} = {value!r}: should be {type(known[key]).__name__}, as {known[key]!r} is"
            )
    try:
        return _replaced(variant, changes)
    except ValueError as error:
        raise ConfigError(f"{changes_key}: {error}") from None


def _fields(prefix: str, variant: Any) -> dict[str, Any]:
    """Values of all fields by their names, but for names of variants."""
    found: dict[str, Any] = {}
    for each in dataclasses.fields(variant):
        value = getattr(variant, each.name)
        if dataclasses.is_dataclass(value):
            found |= _fields(f"{prefix}{each.name}.", value)
        elif prefix or each.name != "name":
            found[prefix + each.name] = value
    return found


def _fits(value: Any, known: Any) -> bool:
    kind = type(known)
    if known is None:
        return True
    return isinstance(value, (int, float) if kind is float else kind) and isinstance(value, bool) == (kind is bool)


def _replaced(variant: V, changes: Mapping[str, Any]) -> V:
    values: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        first, _, rest = key.partition(".")
        if rest:
            inner.setdefault(first, {})[rest] = value
        else:
            values[key] = float(value) if isinstance(getattr(variant, key), float) else value
    values |= {name: _replaced(getattr(variant, name), below) for name, below in inner.items()}
    replaced: V = dataclasses.replace(variant, **values)  # type: ignore[type-var]
    return replaced
