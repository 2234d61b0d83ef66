"""Which frames cannot be trusted where packets were lost, and where whole frames are missing."""

from __future__ import annotations

import bisect
import itertools
import statistics
from collections.abc import Callable, Sequence

from trackmill.pipeline.media.packets import Packet
from trackmill.pipeline.media.transport_stream import Break

_LONGEST_LOSS_S = 1.0
"""Of a transport stream; where more is missing, it was taken out on purpose, and the frames are those that are left."""

_GAP = 1.5
"""Distances of two frames; one is missing where they are farther apart."""

_JITTER = 0.05
"""Share of the distance of two frames by which it varies where the rate is steady."""


def damaged_packets(packets: Sequence[Packet], breaks: Sequence[Break]) -> set[int]:
    """Places of packets that lost data, or that refer to such: up to the next keyframe, and what is shown before it."""
    damaged: set[int] = set()
    positions = [packet.position or 0 for packet in packets]
    begin, end = 0, 0  # rows of the last stretch up to a keyframe; most breaks of a bad recording lie in it
    keys: set[int] = set()
    for gap in breaks:
        after = bisect.bisect_left(positions, gap.position)
        row = after if gap.clean else max(0, after - 1)
        if row < len(packets) and not gap.clean:
            damaged.add(packets[row].place)
            row += 1
        if begin <= row < end:
            row = end
        else:
            begin = row
            while row < len(packets) and not packets[row].is_key:
                damaged.add(packets[row].place)
                row += 1
            end = row
        if row == len(packets) or (gap.clean and row == after) or row in keys:
            continue
        keys.add(row)
        key = packets[row]
        for packet in packets[row + 1 :]:
            if packet.is_key or packet.pts is None or key.pts is None:
                break
            if packet.pts < key.pts:
                damaged.add(packet.place)
    return damaged


def has_gap(times: Sequence[int]) -> bool:
    """Whether two frames are farther apart than most, so that one may be missing between them."""
    distances = [after - before for before, after in itertools.pairwise(sorted(times))]
    return bool(distances) and max(distances) > _GAP * statistics.mode(distances)


def near_breaks(damaged: set[int], breaks: Sequence[Break]) -> Callable[[Packet, Packet], bool]:
    """Whether frames may be missing between two frames, given the damaged packets' places and the breaks."""

    positions = sorted(gap.position for gap in breaks)

    def near(before: Packet, after: Packet) -> bool:
        low, high = sorted((before.position or 0, after.position or 0))
        hurt = before.place in damaged or after.place in damaged
        return hurt or bisect.bisect_right(positions, low) < bisect.bisect_right(positions, high)

    return near


def lost_times(shown: Sequence[Packet], near: Callable[[Packet, Packet], bool], fps: float) -> list[int] | None:
    """Times of frames that are missing as a whole, where a steady rate tells them; None where the rate is not steady.

    Args:
        shown: frames in the order of their times.
        near: whether frames may be missing between one frame and the next.
        fps: frames per second.
    """
    pairs = list(itertools.pairwise(shown))
    distances = [after.pts - before.pts for before, after in pairs]  # type: ignore[operator]
    if not distances:
        return []
    step = statistics.mode(distances)
    steady = sum(abs(distance - step) <= _JITTER * step for distance in distances)
    if 2 * steady < len(distances) or min(distances) < (1 - _JITTER) * step:
        return None
    lost: list[int] = []
    for (before, after), distance in zip(pairs, distances, strict=True):
        number = round(distance / step)
        steps = abs(distance / step - number) < _JITTER * number
        if steps and 1 < number <= fps * _LONGEST_LOSS_S and near(before, after):
            assert before.pts is not None
            lost += [before.pts + i * distance // number for i in range(1, number)]
    return lost
