"""Settings as TOML that `--config` takes, each with its description above it."""

from __future__ import annotations

import textwrap
from typing import Any

import tomlkit
from pydantic import BaseModel
from tomlkit.items import Table

from trackmill.pipeline.storage.credentials import scrub_values

_WIDTH = 110


def as_toml(settings: BaseModel) -> str:
    """All settings; those without a value, which TOML cannot write, as comments."""
    document = tomlkit.document()
    _fill(document, settings)
    return tomlkit.dumps(document).strip()


def _fill(table: tomlkit.TOMLDocument | Table, settings: BaseModel) -> None:
    """Plain values first, as TOML wants them, then the sections."""
    fields = type(settings).model_fields
    plain = settings.model_dump(mode="json")
    sections = [name for name in fields if isinstance(getattr(settings, name), BaseModel)]
    for name, field in fields.items():
        if name in sections:
            continue
        for line in textwrap.wrap(field.description or "", _WIDTH):
            table.add(tomlkit.comment(line))
        if plain[name] is None:
            table.add(tomlkit.comment(f"{name} ="))
        else:
            table.add(name, _inline(scrub_values(_with_values(plain[name]))))
    for name in sections:
        section = tomlkit.table()
        _fill(section, getattr(settings, name))
        table.add(name, section)


def _inline(value: Any) -> Any:
    """Tables within one line: as sections they would move below the settings that come after them, without these
    settings' descriptions."""
    if isinstance(value, dict):
        table = tomlkit.inline_table()
        for key, each in value.items():
            table.add(key, _inline(each))
        return table
    if isinstance(value, list) and any(isinstance(each, dict) for each in value):
        array = tomlkit.array()
        for each in value:
            array.append(_inline(each))
        return array.multiline(True)
    return value


def _with_values(value: Any) -> Any:
    """Without what TOML cannot write."""
    if isinstance(value, dict):
        return {key: _with_values(each) for key, each in value.items() if each is not None}
    return [_with_values(each) for each in value if each is not None] if isinstance(value, list) else value
