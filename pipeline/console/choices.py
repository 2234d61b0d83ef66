"""Options with choices: a word that is none of them is answered with the nearest."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

from trackmill.schemas.names import nearest


class OneOf:
    """The type of an option with choices; unlike argparse's own it names the nearest.

    Args:
        names: the choices.
        else_if: whether another word is allowed as well, such as `my_package.my_module:Class`.
    """

    def __init__(self, names: Iterable[str], else_if: Callable[[str], bool] | None = None) -> None:
        self.names = list(names)
        self._else_if = else_if

    def __call__(self, text: str) -> str:
        """`text`, if it may be.

        Raises:
            ArgumentTypeError: it may not; names the nearest, and all.
        """
        if text in self.names or (self._else_if is not None and self._else_if(text)):
            return text
        advice = nearest(text, self.names), f"known: {', '.join(self.names)}"
        raise argparse.ArgumentTypeError("; ".join(filter(None, [f"{text!r} is unknown", *advice])))
