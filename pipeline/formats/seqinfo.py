"""`seqinfo.ini` of a MOTChallenge sequence: in which folder the pictures lie, and how many a second there are."""

from __future__ import annotations

import configparser
import math

DEFAULT_FPS = 30.0
"""Where no `seqinfo.ini` says otherwise: MOT17's and MOT20's most common rate."""


def parse_seqinfo(text: str) -> tuple[str, float]:
    """The folder of the pictures, `img1` unless `imDir` says otherwise, and the frame rate.

    A folder may be written as Windows writes it (`img1\\`, `.\\img1`), or in quotes.

    Raises:
        ValueError: not an INI file, or the rate is no number above 0; says which in one line.
    """
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
        folder = parser.get("Sequence", "imDir", fallback="")
        fps = parser.getfloat("Sequence", "frameRate", fallback=DEFAULT_FPS)
    except (configparser.Error, ValueError) as error:
        raise ValueError(" ".join(str(error).split())) from None
    if not math.isfinite(fps) or fps <= 0:
        raise ValueError(f"frameRate is {fps:g}, should be above 0")
    parts = folder.strip().strip("\"'").replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", ".")) or "img1", fps
