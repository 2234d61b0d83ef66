"""What an option takes over from the setting that it changes: type, choices, default and help."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from trackmill.pipeline.console.choices import OneOf

_METAVARS = {int: "N", float: "X"}


def keywords_of_setting(settings: type[BaseModel], key: str) -> dict[str, Any]:
    """Keywords for `add_argument`.

    Args:
        settings: where the key is looked up.
        key: with dots, such as `run.executor`.

    Raises:
        KeyError: there is no such setting: a bug of the job.
    """
    field = find_setting(settings, key)
    kind = _without_none(field.annotation)
    keywords: dict[str, Any] = {"default": None, "help": _help(field)}
    if get_origin(kind) is tuple:
        keywords["nargs"] = "+"
        kind = get_args(kind)[0]
        field = FieldInfo(annotation=kind)
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
    if kind is bool:
        return keywords | {"action": argparse.BooleanOptionalAction}
    if get_origin(kind) is Literal:
        names = [str(each) for each in get_args(kind)]
        return keywords | {"type": OneOf(names), "metavar": "{" + ",".join(names) + "}"}
    keywords["metavar"] = _METAVARS.get(kind, key.rpartition(".")[2].upper())
    return keywords | {"type": _reader(field)}


def find_setting(settings: type[BaseModel], key: str) -> FieldInfo:
    """The field of a key with dots."""
    owner: Any = settings
    *sections, name = key.split(".")
    for section in sections:
        owner = owner.model_fields[section].annotation
    field: FieldInfo = owner.model_fields[name]
    return field


def _help(field: FieldInfo) -> str:
    """The setting's description, as the words after an option: `%` doubled for argparse."""
    text = (field.description or "").rstrip(".").replace("%", "%%")
    first = text.partition(" ")[0]
    if len(first) == 1 or first[1:].islower():  # not IoU, CLIP, NMS
        text = text[0].lower() + text[1:]
    default = field.get_default(call_default_factory=False)
    if default in (None, "", (), PydanticUndefined):
        return text
    return f"{text} (default {default})".strip()


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, UnionType):
        kinds = [each for each in get_args(annotation) if each is not type(None)]
        if len(kinds) == 1:
            return kinds[0]
    return annotation


def _reader(field: FieldInfo) -> Callable[[str], Any]:
    """Reads a word as the setting does, bounds included."""
    kind: Any = Annotated[field.annotation, field]
    adapter: TypeAdapter[Any] = TypeAdapter(kind)

    def read(text: str) -> Any:
        try:
            return adapter.validate_python(text)
        except ValidationError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: {error.errors()[0]['msg']}") from None

    return read
