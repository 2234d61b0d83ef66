"""The corpus of a run under chaos: thousands of tiny pictures; some must be refused, each for a known reason."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 24
BAD_SHARE = 0.05
BAD = {
    "empty": "TruncatedMedia",
    "words": "BadItem",
    "cut": "TruncatedMedia",
    "bomb": "PixelLimit",
}
"""What is wrong with a bad one, and the error class that its receipt row must have."""
FOLDER_ITEMS = 500


def make_items(folder: Path, count: int, seed: int) -> dict[str, str]:
    """Write `count` pictures; the same seed gives the same bytes.

    Returns:
        What each is to become, by path: "ok", or the error class of a bad one.
    """
    draw = random.Random(f"items {seed}")
    pixels = np.random.default_rng(seed)
    expected = {}
    for number in range(count):
        path = folder / f"{number // FOLDER_ITEMS:03d}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(pixels.integers(0, 256, (SIDE, SIDE, 3), np.uint8))
        kind = draw.choice(sorted(BAD)) if draw.random() < BAD_SHARE else ""
        path.write_bytes(_spoilt(image, kind))
        expected[str(path)] = BAD.get(kind, "ok")
    return expected


def _spoilt(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    data = buffer.getvalue()
    if kind == "empty":
        return b""
    if kind == "words":
        return b"this is no picture\n" * 20
    if kind == "cut":
        return data[: data.index(b"\xff\xda") + 40]  # some way into the pixels
    if kind == "bomb":
        place = data.index(b"\xff\xc0") + 5
        return data[:place] + b"\xff\xff\xff\xff" + data[place + 4 :]  # 65,535 x 65,535 pixels, as its header says
    return data
