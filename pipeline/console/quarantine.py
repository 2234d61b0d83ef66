"""What `--max-quarantined` says."""

from __future__ import annotations

import math

from trackmill.schemas.errors import InputError


def quarantine_limit(text: str, num_items: int) -> float:
    """Most quarantined items: an empty text is no limit, `5` is a number, `5%` and `0.05` are shares of all items.

    Raises:
        InputError: something else.
    """
    if not text:
        return math.inf
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1
    if not 0 <= value < math.inf:
        raise InputError(f"--max-quarantined {text!r}: give a number of items (5) or a share (5%)")
    if text.endswith("%"):
        return value / 100 * num_items
    return value * num_items if "." in text else value
