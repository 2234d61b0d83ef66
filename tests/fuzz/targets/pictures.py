"""Pictures of every format that is read, mask pictures, and the strict JPEG decoders of shards and loader."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.fuzz.target import Files, Target
from tests.fuzz.targets.media import EMPTY, SETTINGS, read_all
from tests.make_media import jpeg_bytes, make_scene

_SIZE = (24, 32)


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _formats() -> dict[str, bytes]:
    rgb = make_scene(*_SIZE)[0]
    image = Image.fromarray(rgb)
    palette, gray = image.convert("P"), image.convert("L")
    moving = [Image.fromarray(make_scene(*_SIZE, step=i)[0]).convert("P") for i in (1, 2)]
    return {
        "plain.jpg": jpeg_bytes(rgb),
        "progressive.jpg": _saved(image, "JPEG", progressive=True),
        "turned.jpg": jpeg_bytes(rgb, orientation=6),
        "cmyk.jpg": _saved(image.convert("CMYK"), "JPEG"),
        "gray.jpg": _saved(gray, "JPEG"),
        "rgb.png": _saved(image, "PNG"),
        "alpha.png": _saved(image.convert("RGBA"), "PNG"),
        "palette.png": _saved(palette, "PNG", transparency=0),
        "sixteen.png": _saved(Image.fromarray(rgb[..., 0].astype(np.uint16) * 257), "PNG"),
        "lossy.webp": _saved(image, "WEBP", quality=80),
        "lossless.webp": _saved(image, "WEBP", lossless=True),
        "colour.bmp": _saved(image, "BMP"),
        "packed.tif": _saved(image, "TIFF", compression="tiff_lzw"),
        "deflated.tif": _saved(gray, "TIFF", compression="tiff_adobe_deflate"),
        "moving.gif": _saved(moving[0], "GIF", save_all=True, append_images=moving[1:]),
        "plain.ppm": _saved(image, "PPM"),
        "wavelets.jp2": _saved(image, "JPEG2000"),
        "tiles.avif": _saved(image, "AVIF"),
    }


def _pictures() -> list[Files]:
    return [{name: data} for name, data in _formats().items()]


def _read_picture(folder: Path) -> object:
    return read_all(folder, "images")


def _labels() -> list[Files]:
    labels = np.zeros(_SIZE, np.uint8)
    labels[4:10, 3:20], labels[12:20, 6:12] = 1, 2
    palette = Image.fromarray(labels)
    palette.putpalette(np.random.default_rng(0).bytes(768))
    binary = Image.fromarray((labels > 0).astype(np.uint8) * 255)
    made = {"palette": palette, "binary": binary, "bits": binary.convert("1"), "gray": Image.fromarray(labels)}
    return [{f"{name}.png": _saved(image, "PNG")} for name, image in made.items()]


def _read_mask(folder: Path) -> object:
    from trackmill.pipeline.media.mask_pictures import decode_label_picture, decode_mask_picture

    read = []
    for path in sorted(folder.iterdir()):
        name = str(path)
        read.append(decode_label_picture(path.read_bytes(), name, max_pixels=SETTINGS.max_pixels))
        if path.name.startswith("b"):
            read.append(decode_mask_picture(path.read_bytes(), name, max_pixels=SETTINGS.max_pixels))
    return read


ALL = (
    Target(name="picture", seeds=_pictures, run=_read_picture, about=(EMPTY,), share=250),
    Target(name="mask-png", seeds=_labels, run=_read_mask, share=60),
)
