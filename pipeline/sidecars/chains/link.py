"""The rule of a link: two boxes of neighbouring frames, each the other's best match, and no second one near.

Overlap alone decides, so the rule is strict instead of clever. A link needs an IoU, must be mutual (each box overlaps
the other more than any box of the other's frame), and the best must be clearly better than the second best on both
sides: where two people cross, both boxes overlap both, and the chains end rather than swap. A box without a link begins
a chain of its own; what was cut off is lost to a trainer, what was confused would teach it the opposite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Overlap = Callable[[int, int], NDArray[np.float32]]
"""IoU of the boxes of one frame (N) with those of another, later one (M): (N, M)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRule:
    """When two boxes are linked.

    Args:
        min_iou: least IoU of a link.
        margin: by how much the IoU of a link must exceed the second best IoU that either box has with the other frame.
        bridge: frames without a box of the chain that a link may lead over.
    """

    min_iou: float
    margin: float
    bridge: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """The chain of every box.

    Args:
        chains: of each frame the chain (N,) int64 of each of its boxes, numbered from 0 as they begin.
        ious: of each frame the IoU (N,) float32 of the link that leads to each box; 0 where a chain begins.
    """

    chains: list[NDArray[np.int64]]
    ious: list[NDArray[np.float32]]


def link_boxes(counts: Sequence[int], overlap: Overlap, cuts: NDArray[np.bool_], rule: LinkRule) -> Links:
    """Link the boxes of frames that follow each other.

    Args:
        counts: number of boxes in each of T frames.
        overlap: see `Overlap`; asked about frames near each other only.
        cuts: (T - 1,) whether frame t + 1 belongs to another shot than frame t; no link leads over one.
        rule: see `LinkRule`.
    """
    chains: list[NDArray[np.int64]] = []
    ious: list[NDArray[np.float32]] = []
    goes_on = [np.zeros(count, bool) for count in counts]
    begun = 0
    for here, count in enumerate(counts):
        own, link = np.full(count, -1, np.int64), np.zeros(count, np.float32)
        # The nearest frame first: a box that is missed once is only looked for where nothing nearer fits.
        for before in range(here - 1, max(-1, here - 2 - rule.bridge), -1):
            if cuts[before:here].any():
                break
            if not count or not counts[before]:
                continue
            iou = overlap(before, here)
            earlier, later = strict_matches(iou, rule.min_iou, rule.margin)
            free = (own[later] < 0) & ~goes_on[before][earlier]
            earlier, later = earlier[free], later[free]
            own[later], link[later] = chains[before][earlier], iou[earlier, later]
            goes_on[before][earlier] = True
        new = own < 0
        own[new] = begun + np.arange(new.sum())
        begun += int(new.sum())
        chains.append(own)
        ious.append(link)
    return Links(chains=chains, ious=ious)


def strict_matches(
    iou: NDArray[np.float32], min_iou: float, margin: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of a row and a column, each of which is the other's best by at least `margin`.

    Args:
        iou: (N, M), neither of them 0.
        min_iou, margin: see `LinkRule`. Of equal values the first one counts, if `margin` lets any of them.

    Returns:
        Rows (K,), ascending, and their columns (K,).
    """
    rows = np.arange(len(iou))
    best = iou.argmax(axis=1)
    value = iou[rows, best]
    second = np.maximum(_second_best(iou), _second_best(iou.T)[best])
    linked = (iou.argmax(axis=0)[best] == rows) & (value >= min_iou) & (value - second >= margin)
    return rows[linked], best[linked]


def _second_best(iou: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N,) the second largest value of each row; 0 where there is one column."""
    if iou.shape[1] < 2:
        return np.zeros(len(iou), np.float32)
    second: NDArray[np.float32] = np.partition(iou, -2, axis=1)[:, -2]
    return second
