"""What happens when, drawn from one seed: kinds, order, victims and gaps; a gap is counted in progress."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that goes wrong.

    Args:
        number: from 0.
        kind: one of the weights' names.
        gap: progress (units, steps) that is made before it, since the one before.
        which: in [0, 1): the victim's place in a sorted list of those that there are.
        amount: in [0, 1): how long, or how much.
    """

    number: int
    kind: str
    gap: int
    which: float
    amount: float

    def choose(self, victims: list) -> int:
        """Index of the victim."""
        return int(self.which * len(victims))


def gap(text: str) -> tuple[int, int]:
    """The type of an option `--gap LEAST,MOST`.

    Raises:
        ValueError: anything else.
    """
    least, most = map(int, text.split(","))
    if not 1 <= least <= most:
        raise ValueError(f"{text}: LEAST,MOST, both from 1")
    return least, most


def events(seed: int, weights: Mapping[str, float], gap: tuple[int, int]) -> Iterator[Event]:
    """An endless sequence.

    Args:
        seed: the same one gives the same sequence.
        weights: how often each kind is drawn; those of 0 never are.
        gap: the least and the most progress between two.
    """
    draw = random.Random(f"chaos {seed}")
    kinds = [kind for kind, weight in weights.items() if weight]
    number = 0
    while True:
        (kind,) = draw.choices(kinds, [weights[each] for each in kinds])
        yield Event(number, kind, draw.randint(*gap), draw.random(), draw.random())
        number += 1
