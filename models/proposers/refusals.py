"""Refused candidates: all of them counted by reason, a few of them kept for looking at."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackmill.models.proposers.base import MAX_REFUSED_SHOWN
from trackmill.schemas.boxes import Boxes, box_areas, empty_boxes

Reasons = Sequence[str] | NDArray[Any]
"""One reason for each candidate, `""` for those that were not refused."""


def count_refusals(reasons: Reasons, order: Sequence[str]) -> dict[str, int]:
    """How often each reason occurs, in the given order; reasons that do not occur (and `""`) are left out."""
    found = np.asarray(reasons, dtype=str)
    counts = {reason: int((found == reason).sum()) for reason in order}
    return {reason: count for reason, count in counts.items() if count}


def show_refusals(boxes: Boxes, reasons: Reasons, order: Sequence[str]) -> tuple[Boxes, list[str]]:
    """At most `MAX_REFUSED_SHOWN` refused boxes, taken from each reason in turn, the largest first.

    In turn, because there are hundreds of specks for each interesting refusal, and the specks would crowd it out.

    Args:
        boxes: (N, 4) candidates.
        reasons: N reasons; those not in `order` (such as `""`: not refused) are passed over.
        order: the reasons in the order in which they take turns.

    Returns:
        (R, 4) boxes and their R reasons.
    """
    if len(boxes) == 0:
        return empty_boxes(), []
    found = np.asarray(reasons, dtype=str)
    largest_first = np.argsort(-box_areas(boxes), kind="stable")
    by_reason = [largest_first[found[largest_first] == reason] for reason in order]
    turns = [index for turn in zip_longest(*by_reason) for index in turn if index is not None]
    chosen = np.array(turns[:MAX_REFUSED_SHOWN], np.int64)
    return boxes[chosen], found[chosen].tolist()
