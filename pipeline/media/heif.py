"""HEIC pictures, which phones take: read by a plug-in of Pillow that is an extra of its own."""

from __future__ import annotations

import importlib
import threading

from PIL import Image, features

from trackmill.pipeline.media.errors import BadItem
from trackmill.schemas.install import install, install_package

_PLUG_INS = ("pi_heif", "pillow_heif")
"""The first decodes only, without the GPL encoder that the wheels of the second carry; either will do."""

_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}

_lock = threading.Lock()


def is_heic(head: bytes, name: str) -> bool:
    """Whether a file's first bytes are those of a HEIC picture; Pillow can open one then.

    Args:
        head: the first 64 bytes of the file, or all.
        name: its URI, for the error.

    Raises:
        BadItem: the plug-in is not installed, or Pillow was built without AVIF; says what to type.
    """
    if head[4:8] != b"ftyp":
        return False
    length = min(int.from_bytes(head[:4], "big"), 64)
    brands = {head[8:12], *(head[place : place + 4] for place in range(16, length, 4))}
    if brands & _AVIF_BRANDS:
        if not features.check("avif"):
            raise BadItem(f"{name}: an AVIF picture, which this Pillow cannot read: {install_package('-U pillow')}")
        return False
    if not brands & _BRANDS:
        return False
    with _lock:
        if "HEIF" not in Image.OPEN:
            _register(name)
    return True


def _register(name: str) -> None:
    for package in _PLUG_INS:
        try:
            importlib.import_module(package).register_heif_opener()
        except ImportError:
            continue
        return
    raise BadItem(f"{name}: a HEIC picture, which needs an extra: {install('heic')}")
