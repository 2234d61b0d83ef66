"""Tables of settings, out of the classes that hold them."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from generate.markdown import anchor, cell, code, table


def settings_page(title: str, opening: str, settings: BaseModel, prefix: str = "") -> str:
    """A page: one heading a section, one row a setting.

    Args:
        title: of the page.
        opening: what stands under it.
        settings: with the values that count as defaults.
        prefix: of anchors, where several pages have settings of the same name.
    """
    return "\n".join([f"# {title}", "", opening, "", *_section(settings, "", prefix)])


def _section(settings: BaseModel, path: str, prefix: str) -> Iterator[str]:
    fields = type(settings).model_fields
    sections = [name for name in fields if isinstance(getattr(settings, name), BaseModel)]
    rows = [
        [
            f"[{code(path + name)}]{{#{anchor(prefix + path + name)}}}",
            cell(kind_of(field)),
            cell(_shown(getattr(settings, name), field)),
            cell(field.description or ""),
        ]
        for name, field in fields.items()
        if name not in sections
    ]
    if path:
        yield f"## `[{path.rstrip('.')}]`"
        yield ""
        if said := _first_paragraph(type(settings)):
            yield cell(said)
            yield ""
    if rows:
        yield from table(["setting", "type", "default", "what it does"], rows)
        yield ""
    for name in sections:
        yield from _section(getattr(settings, name), f"{path}{name}.", prefix)


def _first_paragraph(cls: type[BaseModel]) -> str:
    return " ".join((cls.__doc__ or "").strip().partition("\n\n")[0].split())


def _shown(value: Any, field: FieldInfo) -> str:
    if field.is_required() and value in (None, PydanticUndefined):
        return "must be given"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, str):
        return code(f'"{value}"')
    return code(str(list(value)) if isinstance(value, tuple) else str(value))


def kind_of(field: FieldInfo) -> str:
    """A setting's type in words, with its bounds."""
    bounds = []
    for rule in field.metadata:
        for name, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤")):
            if (limit := getattr(rule, name, None)) is not None:
                bounds.append(f"{sign} {limit}")
    return ", ".join([_kind(field.annotation), *bounds])


def _kind(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(inner[0])
    if origin is Literal:
        return " or ".join(code(str(each)) for each in inner)
    if origin in (Union, UnionType):
        return " or ".join(_kind(each) for each in inner)
    if origin in (tuple, list):
        kinds = [each for each in inner if each is not Ellipsis]
        return "list of " + _kind(kinds[0]) if len(set(kinds)) == 1 else f"[{', '.join(map(_kind, kinds))}]"
    if origin is dict:
        return "table"
    names = {int: "integer", float: "number", str: "text", bool: "`true` or `false`", type(None): "none"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)).lower())
