"""Options with choices: a word that is none of them is answered with the nearest."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

from trackmill.schemas.names import nearest


def one_of(names: Iterable[str], else_if: Callable[[str], bool] | None = None) -> Callable[[str], str]:
    """The type of an option with choices; unlike argparse's own it names the nearest.

    Args:
        names: the choices.
        else_if: whether another word is allowed as well, such as `my_package.my_module:Class`.
    """
    known = list(names)

    def choice(text: str) -> str:
        if text in known or (else_if is not None and else_if(text)):
            return text
        advice = nearest(text, known), f"known: {', '.join(known)}"
        raise argparse.ArgumentTypeError("; ".join(filter(None, [f"{text!r} is unknown", *advice])))

    return choice
