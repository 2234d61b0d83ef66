"""HEIC and AVIF pictures: read where the plug-in is there, and otherwise a sentence that says what to type."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image, features

from tests.make_media import make_scene
from trackmill.pipeline.media import heif
from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.pictures import decode_picture

# The beginning of a picture as an iPhone writes it.
HEIC = bytes.fromhex("0000001c667479706865696300000000") + b"mif1heicmiaf" + bytes(40)


def decode(data: bytes, name: str = "photo.heic") -> np.ndarray:
    return decode_picture(data, name, max_pixels=10**6, longest_side=1024).image


def test_without_the_plug_in_the_extra_is_named(monkeypatch):
    for package in heif._PLUG_INS:
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(Image, "OPEN", {name: way for name, way in Image.OPEN.items() if name != "HEIF"})
    with pytest.raises(BadItem, match=r'photo\.heic: a HEIC picture, .* pip install -e "\.\[heic\]"'):
        decode(HEIC)


def test_a_video_with_a_like_beginning_is_no_picture():
    with pytest.raises(BadItem, match="not a picture of a known format"):
        decode(HEIC.replace(b"heic", b"isom").replace(b"mif1", b"avc1"))


def test_pixels_of_a_heic_picture():
    package = pytest.importorskip("pillow_heif", reason='needs pip install "pillow-heif", which can write one')
    package.register_heif_opener()
    image = make_scene(48, 64, seed=1)[0]
    out = io.BytesIO()
    Image.fromarray(image).save(out, "HEIF", quality=90)
    assert np.abs(decode(out.getvalue()).astype(int) - image).mean() < 4
    with pytest.raises(BadItem, match=r"photo\.heic"):
        decode(out.getvalue()[:-500])


def test_pixels_of_an_avif_picture(monkeypatch):
    image = make_scene(48, 64, seed=1)[0]
    out = io.BytesIO()
    Image.fromarray(image).save(out, "AVIF", quality=90)
    assert np.abs(decode(out.getvalue(), "a.avif").astype(int) - image).mean() < 4
    monkeypatch.setattr(features, "check", lambda name: name != "avif")
    with pytest.raises(BadItem, match=r"a\.avif: an AVIF picture, which this Pillow cannot read: pip install"):
        decode(out.getvalue(), "a.avif")
