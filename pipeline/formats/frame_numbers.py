"""Which row of a MOTChallenge file belongs to which picture, where pictures are not numbered from 1.

Rows count frames from 1. Pictures are called by the same numbers in published data; OpenCV loops, CVAT and KITTI call
the first one 000000, and people cut sequences without numbering anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trackmill.schemas.errors import InputError

MAX_FRAME = 1 << 24
"""No frame has a larger number: so many are a week at 25 frames a second. What counts frames makes room for them."""


class FramesDoNotFit(InputError):
    """Neither the numbers nor the places of pictures go with the rows of a file."""


def row_shift(numbers: Sequence[int], rows: Iterable[int]) -> int:
    """What is added to the number of a picture in order to get the frame number of its rows.

    - Pictures with gaps between their numbers, or from 1 on: 0, since the names are all that can be meant.
    - From 0 on: 1, unless a row says frame 0.
    - From another number on: 0 if rows lie among those numbers; otherwise the place counts, if rows lie in 1..N.

    Args:
        numbers: of all pictures, ascending.
        rows: frame numbers of the file; each may stand there any number of times.

    Raises:
        FramesDoNotFit: rows are neither among the numbers nor in 1..N; says both ranges.
    """
    frames = set(rows)
    if not numbers or not frames:
        return 1 if numbers and numbers[0] == 0 else 0
    first, last, count = numbers[0], numbers[-1], len(numbers)
    if first == 1 or last - first + 1 != count:
        return 0
    if first == 0:
        return 0 if 0 in frames else 1
    low, high = min(frames), max(frames)
    if low >= first and high <= last:
        return 0
    if high <= count:
        return 1 - first
    if any(first <= frame <= last for frame in frames):
        return 0
    raise FramesDoNotFit(
        f"the pictures are numbered {first} to {last} and rows say frames {low} to {high}: neither these numbers nor "
        f"the places 1 to {count} fit; number one of them anew"
    )
