"""Masks as track files hold them (compressed runs, uncompressed runs, polygons), checked and made COCO RLE.

Every count is checked before pycocotools sees it: its C code trusts run lengths and polygon corners, and a broken file
would make it write past its memory or ask for gigabytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from trackmill.pipeline.formats.errors import BadTracks
from trackmill.schemas.masks import check_runs, parse_counts

Rle = dict[str, Any]
"""COCO RLE `{"size": [height, width], "counts": bytes}`."""

MAX_PIXELS = 1 << 31
"""Pixels of a frame; run lengths of pycocotools have 32 bits."""
MAX_OUTLINE = 1 << 22
"""Length of a polygon's outline in pixels; pycocotools writes it down in steps of a fifth of a pixel."""
_CHUNK_BYTES = 1 << 16


def read_segmentation(value: Any, height: int, width: int, where: str) -> Rle:
    """One mask.

    Args:
        value: RLE `{"size": [h, w], "counts": ...}` with compressed counts (text) or uncompressed (a list of whole
            numbers), or a list of polygons `[x0, y0, x1, y1, ...]` in pixels, rasterised as pycocotools does.
        height, width: size of the frame in pixels.
        where: file and key path, for the error.

    Raises:
        BadTracks: anything else, another size than the frame's, or counts that do not fill the frame; names `where`.
    """
    if height <= 0 or width <= 0 or height * width >= MAX_PIXELS:
        raise BadTracks(f"{where}: a frame of {height} x {width} pixels can hold no mask")
    if isinstance(value, list):
        return _from_polygons(value, height, width, where)
    if not isinstance(value, dict) or "size" not in value or "counts" not in value:
        raise BadTracks(f"{where}: should be a list of polygons, or an object with 'size' and 'counts'")
    size, counts = value["size"], value["counts"]
    if size != [height, width]:
        raise BadTracks(
            f"{where}.size: should be the frame's [height, width], [{height}, {width}], found {brief(size)}"
        )
    compressed = isinstance(counts, (str, bytes))
    if not compressed and not (isinstance(counts, list) and all(type(count) is int for count in counts)):
        raise BadTracks(f"{where}.counts: should be text or a list of whole numbers, found {brief(counts)}")
    try:
        check_runs(parse_counts(counts) if compressed else np.array(counts, np.int64), height, width)
    except (ValueError, OverflowError) as error:
        raise BadTracks(f"{where}.counts: {error}") from None
    if not compressed:
        return _plain(coco.frPyObjects({"size": [height, width], "counts": counts}, height, width), height, width)
    return {"size": [height, width], "counts": counts.encode("ascii") if isinstance(counts, str) else counts}


def read_segmentations(
    values: Sequence[Any], sizes: Sequence[tuple[int, int]], where: Callable[[int], str]
) -> list[Rle]:
    """Many masks; those with compressed counts are checked together, some thirty times faster than one by one.

    Args:
        values: as in `read_segmentation`.
        sizes: (height, width) of the frame of each.
        where: file and key path of the i-th, asked for only when it is broken.
    """
    read: list[Rle | None] = [None] * len(values)
    chunk: list[int] = []
    length = 0
    for i, value in enumerate(values):
        counts = value.get("counts") if type(value) is dict else None
        if type(counts) is str and counts.isascii() and value.get("size") == [*sizes[i]]:
            chunk.append(i)
            length += len(counts)
            if length >= _CHUNK_BYTES:
                _read_chunk(values, sizes, chunk, read)
                chunk, length = [], 0
    _read_chunk(values, sizes, chunk, read)
    # What is left is polygons, uncompressed runs, and everything broken, which gets its error here.
    return [
        rle if rle is not None else read_segmentation(values[i], *sizes[i], where=where(i))
        for i, rle in enumerate(read)
    ]


def brief(value: Any) -> str:
    """A value from a file, short enough for one line."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _read_chunk(
    values: Sequence[Any], sizes: Sequence[tuple[int, int]], chunk: list[int], read: list[Rle | None]
) -> None:
    """Fill `read` where counts are sound; the others stay None."""
    texts = [values[i]["counts"].encode() for i in chunk]
    pixels = np.array([sizes[i][0] * sizes[i][1] for i in chunk], object)
    for i, counts, sound in zip(chunk, texts, _sound(texts, pixels)):
        if sound:
            read[i] = {"size": [*sizes[i]], "counts": counts}


def _sound(texts: list[bytes], pixels: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each text's runs are numbers, not negative, and fill its `pixels`; what `check_runs` says, for many."""
    lengths = np.array([len(text) for text in texts], np.int64)
    sound = (lengths > 0) & (pixels > 0) & (pixels < MAX_PIXELS)
    raw = np.frombuffer(b"".join(texts), np.uint8)
    if not len(raw):
        return np.zeros(len(texts), bool)
    ends = np.cumsum(lengths)
    sound[np.searchsorted(ends, np.flatnonzero((raw < 48) | (raw > 111)), side="right")] = False
    groups = raw - np.uint8(48)
    last = (groups & 0x20) == 0
    finals = ends[lengths > 0] - 1
    sound[lengths > 0] &= last[finals]
    # A broken text must not reach into its neighbour, so every text's last group ends a number.
    last[finals] = True
    stops = np.flatnonzero(last)
    starts = np.concatenate([[0], stops[:-1] + 1])
    size = stops - starts + 1
    sound[np.searchsorted(ends, stops[size > 7], side="right")] = False
    runs = _numbers(groups, starts, np.minimum(size, 7))
    # From the fourth run on, each is the difference to the run two before it: two running sums in each text.
    bounds = np.searchsorted(stops, np.concatenate([[0], ends]))
    begins, amount = bounds[:-1], np.diff(bounds)
    rank = np.arange(len(runs)) - np.repeat(begins, amount)
    for parity in (1, 2):
        here = np.flatnonzero((rank % 2 == parity % 2) & (rank > 0))
        total = np.cumsum(runs[here])
        first = np.flatnonzero(rank[here] == parity)
        before = total[first] - runs[here[first]]
        runs[here] = total - np.repeat(before, np.diff(np.append(first, len(here))))
    sound[np.searchsorted(ends, stops[(runs < 0) | (runs > MAX_PIXELS)], side="right")] = False
    filled = np.concatenate([[0], np.cumsum(np.clip(runs, 0, MAX_PIXELS))])
    return np.asarray(sound & (np.diff(filled[bounds]) == pixels.astype(np.float64)), bool)


def _numbers(groups: NDArray[np.uint8], starts: NDArray[np.int64], size: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers of `size` groups of five bits each, lowest first; the sign is the highest bit."""
    numbers = (groups[starts] & 0x1F).astype(np.int64)
    longer = np.arange(len(starts))
    for place in range(1, int(size.max(initial=1))):
        longer = longer[size[longer] > place]
        numbers[longer] |= (groups[starts[longer] + place] & 0x1F).astype(np.int64) << (5 * place)
    negative = np.flatnonzero(groups[starts + size - 1] & 0x10)
    numbers[negative] -= np.int64(1) << (5 * size[negative])
    return numbers


def _from_polygons(polygons: list[Any], height: int, width: int, where: str) -> Rle:
    if not polygons:
        raise BadTracks(f"{where}: an empty list of polygons; write null where the object is absent")
    for i, polygon in enumerate(polygons):
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise BadTracks(f"{where}[{i}]: a polygon should be a list [x0, y0, x1, y1, ...] of at least 3 corners")
        if not all(type(number) in (int, float) and math.isfinite(number) for number in polygon):
            raise BadTracks(f"{where}[{i}]: a polygon's corners should be finite numbers")
        corners = np.array(polygon, np.float64).reshape(-1, 2)
        if (np.abs(corners) > 2 * max(height, width) + 2).any():
            raise BadTracks(f"{where}[{i}]: a polygon's corner lies far outside its frame of {height} x {width} pixels")
        if np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1).sum() > MAX_OUTLINE:
            raise BadTracks(f"{where}[{i}]: a polygon with an outline of more than {MAX_OUTLINE:,} pixels")
    return _plain(coco.merge(coco.frPyObjects(polygons, height, width)), height, width)


def _plain(rle: Any, height: int, width: int) -> Rle:
    return {"size": [height, width], "counts": rle["counts"]}
