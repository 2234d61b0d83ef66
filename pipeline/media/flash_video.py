"""Whether an FLV file was cut short or damaged: its tags stand one behind the other (Adobe's FLV 10.1, annex E)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO

_TAGS = (8, 9, 18)  # sound, picture, script
_HEAD = 11
_ONE_SECOND_MS = 1000
_SEARCHED_FIRST, _SEARCHED_AT_ONCE = 1 << 12, 1 << 20
_TAG = re.compile(rb"[\x08\x09\x12].{7}\0\0\0", re.DOTALL)  # its kind, size and time, and the number of its stream


def flv_is_cut_short(handle: IO[bytes], duration_s: float) -> bool:
    """Whether the file ends within a tag, or more than a second before the header says; the position may change."""
    end = handle.seek(0, 2)
    last_ms, behind = 0, 0
    for position, head in _walk(handle, end):
        if head:
            last_ms = int.from_bytes(head[4:7], "big") | head[7] << 24
            behind = position + _HEAD + int.from_bytes(head[1:4], "big") + 4
    return behind > end or duration_s * 1000 - last_ms > _ONE_SECOND_MS


def find_damage(handle: IO[bytes], most: int) -> list[int]:
    """Places just within tags behind which no other one follows, though one should; at most `most` of them.

    The handle's position stays as it is.
    """
    before, last = handle.tell(), 0
    damage: list[int] = []
    for position, head in _walk(handle, handle.seek(0, 2)):
        if not head:
            damage.append(last + 1)
        if len(damage) == most:
            break
        last = position
    handle.seek(before)
    return damage


def _walk(handle: IO[bytes], end: int) -> Iterator[tuple[int, bytes]]:
    """Position and head of each tag; no head where there should be one and is none."""
    handle.seek(5)
    position: int | None = int.from_bytes(handle.read(4), "big") + 4
    while position is not None and position + _HEAD <= end:
        handle.seek(position)
        head = handle.read(_HEAD)
        if head[0] & 0x1F in _TAGS and not any(head[8:]):
            yield position, head
            position += _HEAD + int.from_bytes(head[1:4], "big") + 4
        else:
            yield position, b""
            position = _next_tag(handle, position + 1, end)


def _next_tag(handle: IO[bytes], position: int, end: int) -> int | None:
    """Where a tag begins whose length is repeated behind it."""
    at_once = _SEARCHED_FIRST  # mostly one follows soon
    while position < end:
        handle.seek(position)
        data = handle.read(at_once)
        place = 0
        while match := _TAG.search(data, place):
            begin = match.start()
            size = _HEAD + int.from_bytes(data[begin + 1 : begin + 4], "big")
            handle.seek(position + begin + size)
            if int.from_bytes(handle.read(4), "big") == size:
                return position + begin
            place = begin + 1
        position += max(1, len(data) - _HEAD + 1)
        at_once = min(2 * at_once, _SEARCHED_AT_ONCE)
    return None
