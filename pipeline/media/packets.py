"""Packets of a video stream as they are listed, and recordings that were joined brought into one time."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import av

_JUMP_S, _JUMP_BACK_S = 10.0, 0.1
"""Times that jump farther are those of another recording behind this one (FFmpeg's -dts_delta_threshold)."""


@dataclass(slots=True)
class Packet:
    """A coded frame.

    Args:
        place: how many packets of the stream come before it in the file.
        pts, dts: when it is shown and decoded, in the stream's unit; of recordings that were joined, as one.
        position: in bytes; None where it is not known.
        is_key: whether decoding can begin at it.
        shown: False where an edit list hides it, or where it only prepares others.
        counted: whether the file's own number of frames includes it.
    """

    place: int
    pts: int | None
    dts: int | None
    position: int | None
    is_key: bool
    shown: bool
    counted: bool


def put_in_order(packets: list[Packet]) -> set[int]:
    """Sort by position, and return the places of packets that come too late to be decoded.

    Where a joined recording has another stream number, FFmpeg hands out the last frame before it at the very end.
    """
    late, farthest = set(), -1
    for packet in packets:
        if packet.position is None:
            packet.position = farthest
        elif packet.position < farthest:
            late.add(packet.place)
        farthest = max(farthest, packet.position)
    packets.sort(key=lambda packet: packet.position or 0)
    return late


def join_recordings(packets: Sequence[Packet], stream: av.VideoStream) -> tuple[list[tuple[int, int]], set[int]]:
    """Give recordings that were joined, whose times each begin anew, one common time.

    Frames that refer to what was cut off before a joint are not shown any more.

    Returns:
        (place, shift) of each joint: from that packet on, the shift was added to times; and the places of packets that
        refer to what was cut off.
    """
    unit = float(stream.time_base or 0)
    steps = [after - before for before, after in itertools.pairwise(_clock(packets))]
    step = statistics.median_low([each for each in steps if each > 0] or [1])
    shifts: list[tuple[int, int]] = []
    cut_off: set[int] = set()
    shift, last, latest, begin = 0, None, 0, 0
    waiting = False  # for the first keyframe of a recording
    for packet in packets:
        time = packet.dts if packet.dts is not None else packet.pts
        if time is None or packet.pts is None:
            continue
        if last is not None and not -_JUMP_BACK_S <= (time - last) * unit <= _JUMP_S:
            waiting = True
        if waiting and packet.is_key:
            shift, waiting = latest + step - packet.pts, False
            shifts.append((packet.place, shift))
            begin = latest + step
        last = time
        if waiting or (shifts and packet.pts + shift < begin):
            # It refers to frames that were cut off.
            packet.shown = packet.counted = False
            cut_off.add(packet.place)
            continue
        packet.pts += shift
        packet.dts = None if packet.dts is None else packet.dts + shift
        latest = max(latest, packet.pts)
    return shifts, cut_off


def _clock(packets: Sequence[Packet]) -> list[int]:
    return [packet.dts for packet in packets if packet.dts is not None]
