"""Code of somebody else: `my_package.my_module:Name` is found, imported, and held against its contract.

Whatever is chosen by name, such as a model, a source or a task, may be named like this. This module imports no
framework.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from trackmill.schemas.errors import InputError
from trackmill.schemas.names import nearest

T = TypeVar("T")

OUTSIDE: list[str] = []
"""What was imported in this process that is not ours: it may be the cause of what then goes wrong."""


def choose(what: str, name: str, known: Iterable[str]) -> str:
    """`name`, if it is known.

    Raises:
        ValueError: it is not; names the nearest, or all.
    """
    names = list(known)
    if name in names:
        return name
    advice = nearest(name, names) or f"known: {', '.join(names)}"
    raise InputError(f"no {what} is called {name!r}; {advice}; your own: my_package.my_module:Name")


def is_outside(name: str) -> bool:
    """Whether `name` says where code of somebody else's lies: `package.module:attribute`, and is no path and no URL."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))


def import_object(path: str, what: str, likely: Iterable[str] = ()) -> Any:
    """The module `package.module`, or the object that `package.module:attribute` names.

    Args:
        path: where it is. Modules that are not ours are looked for in the current folder too, after all other places.
        what: what it should be, for the error.
        likely: names that may have been meant, for the error.

    Raises:
        ValueError: there is no such module or attribute; says which, and where was looked.
        Exception: whatever the module raises while it is imported.
    """
    module, colon, attribute = path.partition(":")
    if not module.startswith("trackmill."):
        if path not in OUTSIDE:
            OUTSIDE.append(path)
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A package that is missing inside the module is another matter than the module itself.
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise
        advice = nearest(path, likely) or f"looked in {os.getcwd()}, PYTHONPATH and what is installed"
        raise InputError(f"{what} {path}: there is no module {error.name!r}; {advice}") from None
    if not colon:
        return found
    try:
        return getattr(found, attribute)
    except AttributeError:
        advice = nearest(attribute, vars(found))
        raise InputError("; ".join(filter(None, [f"{what} {path}: {module} has no {attribute!r}", advice]))) from None


def require_class(found: Any, base: type[T], what: str, name: str, attributes: Mapping[str, str]) -> type[T]:
    """Somebody else's class, after a look at whether it keeps its contract as far as a class can.

    Args:
        found: what `import_object` gave.
        base: the class that it should be derived from.
        what: it should be, such as `proposer`.
        name: under which it was given.
        attributes: that it must have, and what each is.

    Raises:
        InputError: no such class, or it lacks methods, attributes or a `Config` that is a `Settings`; names them.
    """
    from trackmill.schemas.config import Settings

    where = f"{base.__module__}.{base.__name__}"
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(f"{what} {name}: it is no class derived from {where}")
    lacking = sorted(getattr(found, "__abstractmethods__", ()))
    if lacking:
        raise InputError(f"{what} {name}: the class lacks {', '.join(lacking)}, see {where}")
    for attribute, meaning in attributes.items():
        if not hasattr(found, attribute):
            raise InputError(f"{what} {name}: the class needs an attribute {attribute!r}: {meaning}")
    version = getattr(found, "version", 0)
    if not isinstance(version, int):
        raise InputError(f"{what} {name}: its version is {version!r}, should be a whole number")
    config = getattr(found, "Config", Settings)
    if not (isinstance(config, type) and issubclass(config, Settings)):
        raise InputError(f"{what} {name}: its Config is no class derived from trackmill.schemas.config.Settings")
    return found
