"""Names that people type: the nearest known one goes into the error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from trackmill.schemas.errors import InputError


def nearest(word: str, known: Iterable[str], prefix: str = "") -> str:
    """`did you mean 'masa_r50'?`, or an empty text where no name is near.

    Args:
        word: what was given.
        known: all names.
        prefix: what stands before the name where people type it, such as `optim.`.
    """
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {prefix + close[0]!r}?" if close else ""


def shortened(text: str, length: int) -> str:
    """The text, or its beginning and its end with a mark between them: what a message quotes may be of any length."""
    half = length // 2
    return text if len(text) <= length else f"{text[:half]}…{text[-half:]}"


def require_known(what: str, name: str, known: Iterable[str]) -> str:
    """`name`, if it is known.

    Args:
        what: it is a name of, such as `benchmark`.
        name: what was given.
        known: all names.

    Raises:
        InputError: it is not; names the nearest, or all.
    """
    names = list(known)
    if name in names:
        return name
    raise InputError(f"no {what} is called {name!r}; {nearest(name, names) or 'known: ' + ', '.join(names)}")
