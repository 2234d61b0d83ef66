"""Where packets of an MPEG transport stream were lost (ISO/IEC 13818-1): their counters say so, FFmpeg not exactly.

FFmpeg marks a frame near the loss, often the one before, since its parser looks ahead. Which frames can be trusted
decides what is stored, so the counters are read here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

_SYNC = 0x47
_SIZE = 188
_STRIDES = (188, 192, 204)  # plain, with time codes in front (M2TS), with check bytes behind
_TIME_CODE = 4
_FEWEST_AT_ONCE, _PACKETS_AT_ONCE = 1 << 8, 1 << 16
_SURE = 5  # so many packets in a row have their mark in place


@dataclass(frozen=True, slots=True)
class Break:
    """A place where packets of one stream are missing.

    Args:
        position: of the first packet behind it, in bytes.
        clean: a coded frame ends before it and another one begins behind it, so that none was cut; whole frames may be
            missing. Two files that were joined meet like that.
    """

    position: int
    clean: bool


def find_breaks(handle: IO[bytes], pid: int) -> list[Break]:
    """All breaks of the stream `pid`, in the order of the file; its position stays as it is."""
    before = handle.tell()
    try:
        return list(_breaks(handle, pid))
    finally:
        handle.seek(before)


def ends_within_packet(handle: IO[bytes]) -> bool:
    """Whether a file that begins with whole packets does not end with one; the position may change."""
    end = handle.seek(0, 2)
    handle.seek(0)
    found = _next_packets(np.frombuffer(handle.read(_SURE * 204), np.uint8))
    if found is None:
        return False
    first, stride = found
    return (end - first + (_TIME_CODE if stride == 192 else 0)) % stride != 0


def _breaks(handle: IO[bytes], pid: int) -> Iterator[Break]:
    last = -1  # counter of the stream's packet before; -1 where there was none
    padded = False  # whether that packet was filled up, as the last one of a coded frame is
    hurt = False  # whether packets in between could not be read
    for position, stride, packets in _blocks(handle):
        if stride == 0:
            hurt = True
            continue
        mine = np.flatnonzero(((packets[:, 1].astype(int) & 0x1F) << 8 | packets[:, 2]) == pid)
        for row, head in zip(mine.tolist(), packets[mine, :6].tolist(), strict=True):
            damaged, begins, counter = bool(head[1] & 0x80), bool(head[1] & 0x40), head[3] & 0x0F
            if not head[3] & 0x10 and not damaged:
                continue  # without a payload the counter stands still
            announced = head[3] & 0x20 and head[4] and head[5] & 0x80
            if hurt or damaged or (last >= 0 and counter != (last + 1) & 0x0F and not announced):
                place = position + row * stride - (_TIME_CODE if stride == 192 else 0)
                yield Break(place, begins and padded and not hurt and not damaged)
            hurt, last, padded = False, counter, _is_padded(head)


def _is_padded(head: list[int]) -> bool:
    """Whether a packet's head holds bytes that only fill it up."""
    if not head[3] & 0x20:
        return False
    length, flags = head[4], head[5]
    if length == 0:
        return True
    if flags & 0x03:  # fields whose length stands further on
        return False
    used = 1 + 6 * bool(flags & 0x10) + 6 * bool(flags & 0x08) + bool(flags & 0x04)
    return length > used


def _blocks(handle: IO[bytes]) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
    """Position, stride and packets (N, 188) of each run of whole packets; stride 0 where bytes are none."""
    end = handle.seek(0, 2)
    position, stride = 0, 0
    at_once = _FEWEST_AT_ONCE  # behind damage there may soon be more
    while position + _SIZE <= end:
        handle.seek(position)
        data = np.frombuffer(handle.read(at_once * 204), np.uint8)
        at_once = min(2 * at_once, _PACKETS_AT_ONCE)
        if not stride:
            found = _next_packets(data)
            if found is None:
                position += max(1, len(data) - _SURE * 204)
                continue
            skipped, stride = found
            if skipped and position:
                yield position, 0, np.zeros((0, _SIZE), np.uint8)
            position += skipped
            continue
        count = max(1, len(data) // stride) if len(data) >= _SIZE else 0
        rows = np.lib.stride_tricks.sliding_window_view(data, _SIZE)[::stride][:count]
        wrong = np.flatnonzero(rows[:, 0] != _SYNC)
        whole = int(wrong[0]) if len(wrong) else len(rows)
        if whole:
            yield position, stride, rows[:whole]
        position += whole * stride
        if len(wrong):
            yield position, 0, np.zeros((0, _SIZE), np.uint8)
            position, stride, at_once = position + 1, 0, _FEWEST_AT_ONCE


def _next_packets(data: NDArray[np.uint8]) -> tuple[int, int] | None:
    """Where packets begin again, and their stride."""
    best: tuple[int, int] | None = None
    for stride in _STRIDES:
        span = (_SURE - 1) * stride
        if len(data) <= span:
            continue
        marks = data == _SYNC
        good = marks[: len(data) - span].copy()
        for step in range(1, _SURE):
            good &= marks[step * stride : len(data) - span + step * stride]
        place = int(good.argmax())
        if good[place] and (best is None or place < best[0]):
            best = place, stride
    return best
