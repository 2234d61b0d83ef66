"""What must stay together when a data set is split, and where in 0..1 a hash puts it: the same on every machine."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trackmill.pipeline.storage.urls import dirname
from trackmill.schemas.errors import InputError
from trackmill.schemas.keys import video_of

Grouping = Literal["video", "folder", "sample"]
GROUPINGS: dict[str, str] = {
    "video": "all clips of one video; a picture is a group of its own",
    "folder": "all files of one folder, for videos that were mined as loose pictures",
    "sample": "each sample by itself, so that clips of one video may part",
}
"""What is a group, and for whom."""

GROUP_COLUMNS = ("source_id", "key", "uri")
"""Columns of receipts that groups are told by."""

_NUMBER = re.compile(r"^\d{0,9}(\.\d{1,15}|/\d{1,9})?$")

END = 1 << 64
"""One past the largest place: hashes have 64 bits."""

Span = tuple[int, int]
"""Places from the first number on, and before the second."""


def places(rows: pa.Table, by: Grouping, seed: int) -> NDArray[np.uint64]:
    """(N,) where the group of each row lies, as whole numbers below `END`.

    Args:
        rows: with `GROUP_COLUMNS`.
        by: what a group is.
        seed: another one puts all groups elsewhere.
    """
    column = {"video": "source_id", "folder": "uri", "sample": "key"}[by]
    names: dict[str, Callable[[str], str]] = {"video": video_of, "folder": dirname, "sample": str}
    name_of = names[by]
    found = (_place(f"{seed}:{name_of(text)}") for text in rows[column].to_pylist())
    return np.fromiter(found, np.uint64, len(rows))


def spans(shares: dict[str, str]) -> dict[str, Span]:
    """Shares of a data set as spans of places, one behind the other.

    Args:
        shares: of each part, as text such as `0.9` or `9/10`: fractions, so that 0.7 and 0.2 and 0.1 leave no gap.

    Raises:
        InputError: a share that is none, or all of them are more than 1.
    """
    found: dict[str, Span] = {}
    begin = Fraction(0)
    for name, text in shares.items():
        try:
            share = Fraction(text) if _NUMBER.match(text) else Fraction(0)
        except (ValueError, ZeroDivisionError):
            share = Fraction(0)
        if not 0 < share <= 1:
            raise InputError(f"{name}={text[:40]}: a share is a number above 0 and up to 1, such as 0.9")
        end = begin + share
        if end > 1:
            raise InputError(f"the shares are {float(end):g} together; they may be 1 at most")
        found[name] = (int(begin * END), int(end * END))
        begin = end
    return found


def inside(found: NDArray[np.uint64], span: Span) -> NDArray[np.bool_]:
    """(N,) which places lie in a span."""
    low, high = span
    # The end of all places does not fit into 64 bits; nothing lies behind it.
    below = np.ones(len(found), np.bool_) if high >= END else found < np.uint64(high)
    wanted: NDArray[np.bool_] = below & (found >= np.uint64(low))
    return wanted


def _place(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
