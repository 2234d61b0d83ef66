"""Recipes in files: TOML, of which one may stand on another (`base = "masa_gdino"`) and say only what differs."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import exists, read_bytes
from trackmill.pipeline.storage.urls import basename, canonical, dirname, join
from trackmill.pipeline.training.recipe import Recipe, make_recipe
from trackmill.schemas.config import MAX_CONFIG_BYTES, ConfigError, merge, parse_toml
from trackmill.schemas.names import nearest

SUFFIX = ".toml"


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """One file of a recipe: where it is, and what it says beside `base`."""

    source: str
    values: dict[str, Any]


def load_recipe(name_or_path: str, overrides: Mapping[str, Any], folder: Path | None = None) -> Recipe:
    """Read a recipe with its bases and lay changes over it.

    A file that begins with `base = "NAME"` has everything of that recipe, but for the keys that it sets itself. NAME is
    a file of the same folder, or else of `folder`; `base = "../other.toml"` is a path relative to the file, or a URL. A
    list replaces the list of the base. The name of a base is not taken over.

    Args:
        name_or_path: name of a file in `folder`, or the path or URL of any TOML file.
        overrides: nested plain values that win over the file.
        folder: where recipes by name lie.

    Raises:
        ConfigError: no such recipe or base, bases that run in a circle, unknown keys (names the file and the nearest),
            or values out of range.
    """
    shown = f"recipe {redact(name_or_path)}"
    source = canonical(name_or_path) if _is_path(name_or_path) else ""
    if not source:
        source = _by_name(name_or_path, [str(folder)] if folder else [], f"recipe {name_or_path!r}")
    layers = _layers(source, folder, shown)
    values: dict[str, Any] = {}
    for layer in layers:
        values = merge(values, layer.values)
    values = merge(values, dict(overrides))
    values.setdefault("name", basename(source).removesuffix(SUFFIX))
    try:
        return make_recipe(values, shown)
    except ConfigError as error:
        raise _first_mistake(layers, shown) or error from None


def _layers(source: str, folder: Path | None, shown: str) -> list[_Layer]:
    """A file and its bases, the lowest first."""
    layers: list[_Layer] = []
    above: list[str] = []
    where, named_by = shown, f"{shown}: no such file"
    while source:
        if source in above:
            circle = " -> ".join(redact(each) for each in [*above[above.index(source) :], source])
            raise ConfigError(f"{shown}: its bases run in a circle: {circle}")
        above.append(source)
        try:
            values = parse_toml(read_bytes(source, max_bytes=MAX_CONFIG_BYTES).decode(), where)
        except FileNotFoundError:
            raise ConfigError(named_by) from None
        except UnicodeDecodeError:
            raise ConfigError(f"{where}: not a text file; a recipe is TOML") from None
        base = values.pop("base", None)
        for key in values:  # `base` is no key of the recipe itself, whose own hint would leave it out
            if isinstance(values[key], str) and (hint := nearest(key, ["base"])):
                raise ConfigError(f"{where}: unknown key {key!r}; {hint}")
        if len(above) > 1:
            values.pop("name", None)
        layers.insert(0, _Layer(source=source, values=values))
        source = "" if base is None else _base(base, source, folder, where)
        where, named_by = f"recipe {redact(source)}", f"{where}: base = {base!r}: there is no file {redact(source)}"
    return layers


def _base(base: Any, source: str, folder: Path | None, where: str) -> str:
    """Where the base of a file lies."""
    if not isinstance(base, str) or not base:
        raise ConfigError(f'{where}: base = {base!r} should be the name or path of a recipe, as in base = "masa_gdino"')
    if not _is_path(base):
        folders = [dirname(source), *([str(folder)] if folder else [])]
        return _by_name(base, folders, f"{where}: base = {base!r}")
    if "://" in base or base.startswith("/"):
        return canonical(base)
    protocol, mark, path = dirname(source).rpartition("://")
    return canonical(protocol + mark + posixpath.normpath(posixpath.join(path, base)))


def _by_name(name: str, folders: list[str], what: str) -> str:
    """The file of a recipe that is given by name, in the first of some folders that has it."""
    for folder in folders:
        file = join(canonical(folder), name + SUFFIX)
        if exists(file):
            return file
    known = sorted({path.stem for folder in folders if "://" not in folder for path in Path(folder).glob(f"*{SUFFIX}")})
    hint = f"{nearest(name, known)} ".lstrip()
    raise ConfigError(f"{what}: {hint}known are {', '.join(known)}; or give the path of a .toml file")


def _first_mistake(layers: list[_Layer], shown: str) -> ConfigError | None:
    """The error of the lowest file that makes a mistake; None where the files themselves are right."""
    values: dict[str, Any] = {}
    for place, layer in enumerate(layers, start=1):
        values = merge(values, layer.values)
        try:
            make_recipe(values, shown if place == len(layers) else f"recipe {redact(layer.source)}, a base of {shown}")
        except ConfigError as error:
            return error
    return None


def _is_path(name: str) -> bool:
    return name.endswith(SUFFIX) or "/" in name
