"""Models, detectors and proposers by name: where each is, which extra it needs, which weights are published for it.

Jobs, export, conversion, tracking and evaluation ask here and name no model themselves. A name with a colon is somebody
else's code: `my_package.my_module:Class`, found as Python finds it, also in the folder where the command was typed.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trackmill.schemas.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing that a name stands for.

    Args:
        target: `module:attribute`, imported when it is used and not before.
        summary: a few words for `--help`.
        extra: of pip, that its packages are in; "" where they are always there.
        options: settings that the name implies, such as the variant of a model.
        published: names of the checkpoint files that its authors publish.
    """

    target: str
    summary: str
    extra: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    published: tuple[str, ...] = ()


def choose(what: str, name: str, known: Iterable[str]) -> str:
    """`name`, if it is known.

    Raises:
        ValueError: it is not; names the nearest, or all.
    """
    names = list(known)
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1)
    advice = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
    raise InputError(f"no {what} is called {name!r}; {advice}; your own: my_package.my_module:Name")


def is_outside(name: str) -> bool:
    """Whether `name` says where code of somebody else's lies: `package.module:attribute`, and is no path and no URL."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))


def import_object(path: str, what: str) -> Any:
    """The object that `package.module:attribute` names.

    Args:
        path: where it is; modules are looked for in the current folder last.
        what: what it should be, for the error.

    Raises:
        ValueError: there is no such module or attribute; says which, and where was looked.
        Exception: whatever the module raises while it is imported.
    """
    module, _, attribute = path.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A package that is missing inside the module is another matter than the module itself.
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise
        raise InputError(
            f"{what} {path}: there is no module {error.name!r}; looked in {os.getcwd()} and what is installed"
        ) from None
    try:
        return getattr(found, attribute)
    except AttributeError:
        raise InputError(f"{what} {path}: {module} has no {attribute!r}") from None
