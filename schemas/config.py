"""Settings: typed sections, TOML text in, one error that names the key and the nearest known one out.

A section is a pydantic model beside the code that uses it. An unknown key is an error, because a setting that is
misspelt and silently ignored costs a night.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator
from typing import Any, TypeVar, get_args

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from trackmill.schemas.errors import InputError
from trackmill.schemas.names import nearest, shortened

S = TypeVar("S", bound="Settings")


class ConfigError(InputError):
    """A setting that is unknown, of the wrong type or out of range; the text says which and how to mend it."""


_LARGEST = 1e9
"""No fraction of a second, pixel, weight or rate that a setting may mean is larger, either way; what is, overflows."""


MAX_CONFIG_BYTES = 1 << 20
"""Of a file of settings, and of one value on the command line. Recipes have a few kB."""

MOST_LEVELS = 32
"""Lists and sections inside each other; the deepest setting has four."""
_MOST_NAMED = 8
"""Mistakes that one message names; more are counted."""
_LONGEST_KEY = 120


class ExcessiveToml(ConfigError):
    """TOML that no setting needs: nested without end, or a number of thousands of digits."""


class Settings(BaseModel):
    """Base of every section: immutable, unknown keys are refused, and so are numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _bounded(cls, value: Any) -> Any:
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and abs(number) > _LARGEST:
                raise ValueError(f"{number:g} is out of range: at most {_LARGEST:g} in size")
        return value


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """TOML text as nested dictionaries.

    Raises:
        ConfigError: not TOML; names `where` and the line.
        ExcessiveToml: (one of these) nested deeper than `MOST_LEVELS`, or a number of thousands of digits.
    """
    if len(text) > MAX_CONFIG_BYTES:
        raise ExcessiveToml(f"{where}: {len(text):,} characters, more than {MAX_CONFIG_BYTES:,}, the limit of settings")
    try:
        values = tomllib.loads(text.removeprefix("\ufeff"))  # as editors of Windows begin a file
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not valid TOML: {shortened(str(error), 300)}") from None
    except RecursionError:
        raise ExcessiveToml(_too_deep(where)) from None
    except ValueError:  # what Python says of them begins to explain its own options
        raise ExcessiveToml(f"{where}: holds a number of thousands of digits") from None
    require_levels(values, where)
    return values


def require_levels(values: dict[str, Any], where: str) -> None:
    """Refuse values that nest deeper than `MOST_LEVELS`: recursive code could not walk them.

    Raises:
        ExcessiveToml: names the key.
    """
    level: list[tuple[str, Any]] = list(values.items())
    for _ in range(MOST_LEVELS):
        for key, value in level:
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise ExcessiveToml(f"{where}: {shortened(key, _LONGEST_KEY)}: a whole number of more than 64 bits")
        level = [(_full(key, name), each) for key, value in level for name, each in _inside(value)]
    if level:
        raise ExcessiveToml(_too_deep(f"{where}: {shortened(level[0][0], _LONGEST_KEY)}"))


def _inside(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return list(value.items())
    return [("", each) for each in value] if isinstance(value, list) else []


def _full(key: str, name: str) -> str:
    return f"{key}.{name}" if name and len(key) < _LONGEST_KEY else key


def _too_deep(where: str) -> str:
    return f"{where}: more than {MOST_LEVELS} lists or sections inside each other, which no setting has"


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, section by section."""
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return merged


def build(cls: type[S], values: dict[str, Any], where: str) -> S:
    """Make a section out of plain values.

    Raises:
        ConfigError: names the key in full, what is wrong with it and, for an unknown key, the nearest known one.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_context=False, include_input=False)
        lines = [_explain(cls, each["loc"], each["type"], each["msg"]) for each in mistakes[:_MOST_NAMED]]
        more = f"; and {len(mistakes) - _MOST_NAMED} more mistakes" if len(mistakes) > _MOST_NAMED else ""
        raise ConfigError(f"{where}: {'; '.join(lines)}{more}") from None


def _explain(cls: type[BaseModel], location: tuple[int | str, ...], kind: str, message: str) -> str:
    dotted = shortened(".".join(str(part) for part in location), _LONGEST_KEY)
    if kind == "tuple_type":
        return f"{dotted}: should be a list in brackets{_example(cls, location)}"
    if kind != "extra_forbidden":
        return f"{dotted}: {message.removeprefix('Value error, ')}"
    owner: Any = cls
    for part in location[:-1]:
        # The place in a list of sections is no field: the section is what the list holds.
        owner = _section(owner.model_fields[str(part)].annotation) if isinstance(part, str) else owner
    # Hints are whole keys: they can be copied into the command.
    section, name = "".join(f"{part}." for part in location[:-1]), str(location[-1])
    elsewhere = [key for key in _keys(cls) if key.endswith(f".{name}")]
    known = [section + each for each in owner.model_fields]
    hint = f"did you mean {elsewhere[0]!r}?" if elsewhere else f"known keys: {', '.join(known)}"
    hint = nearest(name, owner.model_fields, section) or hint
    return f"unknown key {dotted!r}; {hint}"


def _example(cls: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """The default of a key, unless it is empty or within a list."""
    owner: Any = cls
    for part in location[:-1]:
        owner = _section(owner.model_fields[part].annotation) if owner and part in owner.model_fields else None
    field = owner.model_fields.get(location[-1]) if owner else None
    default = field.get_default(call_default_factory=True) if field else None
    return f", such as {orjson.dumps(default).decode()}" if isinstance(default, tuple) and default else ""


def _keys(cls: type[BaseModel], section: str = "") -> Iterator[str]:
    """All keys of a class and its sections; of sections in lists none, since they have no key of their own."""
    for name, field in cls.model_fields.items():
        yield section + name
        below = field.annotation
        if isinstance(below, type) and issubclass(below, BaseModel):
            yield from _keys(below, f"{section}{name}.")


def _section(annotation: Any) -> Any:
    """The class of a section, also where a field holds several (`tuple[GroupSettings, ...]`) or may be None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section, get_args(annotation))), None)


def digest(values: Any) -> str:
    """SHA-256 over plain values, independent of the order of keys: 64 hexadecimal digits."""
    return hashlib.sha256(orjson.dumps(values, option=orjson.OPT_SORT_KEYS)).hexdigest()


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one level of dotted keys, for comparing two configurations line by line."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def setting_differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Where two configurations differ, a line for each dotted key: `sam.iou: 0.88 -> 0.9`. Equal ones give no line."""
    old, new = flatten(before), flatten(now)
    return [
        f"{key}: {old.get(key, 'not set')} -> {new.get(key, 'not set')}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
