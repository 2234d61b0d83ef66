"""How many strips or tiles a TIFF declares, read before Pillow makes a list of them (TIFF 6.0, BigTIFF)."""

from __future__ import annotations

import struct

from trackmill.pipeline.media.errors import BadItem

MAX_STRIPS = 500_000
"""Most strips or tiles of a picture: a strip for each row of the longest picture that anyone prints. Each takes some
400 bytes of memory while the picture is opened."""

_STRIP_PLACES, _TILE_PLACES = 273, 324


def check_tiff_header(data: bytes, name: str) -> None:
    """Refuse a TIFF whose first picture is cut into too many pieces; what is no TIFF is passed.

    Args:
        data: the file.
        name: its URI, for the error.

    Raises:
        BadItem: more than `MAX_STRIPS` strips or tiles.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 16:
        return
    is_big = data[2:4] in (b"\x2b\0", b"\0\x2b")
    head, number, entry = ("8xQ", "Q", "HHQ8x") if is_big else ("4xL", "H", "HHL4x")
    place: int = struct.unpack_from(order + head, data)[0]
    count_of, entry_of = struct.Struct(order + number), struct.Struct(order + entry)
    if place + count_of.size > len(data):
        return
    count = count_of.unpack_from(data, place)[0]
    place += count_of.size
    for _ in range(min(count, (len(data) - place) // entry_of.size)):
        tag, _, pieces = entry_of.unpack_from(data, place)
        place += entry_of.size
        if tag in (_STRIP_PLACES, _TILE_PLACES) and pieces > MAX_STRIPS:
            raise BadItem(f"{name}: the picture is cut into {pieces} strips or tiles; at most {MAX_STRIPS} are read")
