"""Pictures and masks that cost far more than they show: refused early, in a sentence, or read in little memory."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

from trackmill.pipeline.media import pictures, tiff_files
from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.pictures import decode_picture, num_pictures
from trackmill.pipeline.sources import frame_masks
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.sources.frame_masks import read_frame_mask


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def decode(data: bytes):
    return decode_picture(data, "x.img", max_pixels=10_000_000, longest_side=64)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("tag", [273, 324])
@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_of_millions_of_pieces_is_refused_before_they_are_listed(order, tag, big):
    mark = b"II" if order == "<" else b"MM"
    if big:
        data = mark + struct.pack(f"{order}3HQQHHQQ", 43, 8, 0, 16, 1, tag, 16, 1 << 40, 99)
    else:
        data = mark + struct.pack(f"{order}HLHHHLL", 42, 8, 1, tag, 4, 1 << 30, 99)
    with pytest.raises(BadItem, match=rf"x\.img: the picture is cut into {1 << (40 if big else 30)} strips or tiles"):
        decode(data)


def test_a_tiff_of_many_strips_is_read(monkeypatch):
    image = Image.fromarray(np.arange(40 * 30 * 3, dtype=np.uint8).reshape(40, 30, 3))
    data = encoded(image, "TIFF", tiffinfo={278: 1})
    assert np.array_equal(decode(data).image, np.asarray(image))
    monkeypatch.setattr(tiff_files, "MAX_STRIPS", 39)
    with pytest.raises(BadItem, match="cut into 40 strips"):
        decode(data)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16"])
def test_pixels_do_not_depend_on_the_strips_that_they_are_converted_in(monkeypatch, mode):
    rng = np.random.default_rng(1)
    values = rng.integers(0, 65536, (61, 47), np.uint16)
    image = Image.fromarray(values) if mode == "I;16" else Image.fromarray(rng.integers(0, 256, (61, 47, 4), np.uint8))
    data = encoded(image if mode == "I;16" else image.convert(mode))
    whole = decode(data).image
    monkeypatch.setattr(pictures, "_STRIP_PIXELS", 100)
    assert np.array_equal(decode(data).image, whole)


def test_a_pixel_of_any_kind_takes_less_than_fifteen_bytes_of_memory():
    """In a process of its own under a limit on its address space; transparency and 16 bits are the dearest."""
    program = """
        import io, resource
        from PIL import Image
        from trackmill.pipeline.media.pictures import decode_picture

        def png(mode, size=(4_000, 4_000)):
            out = io.BytesIO()
            Image.new(mode, size).save(out, "PNG", compress_level=1)
            return out.getvalue()

        files = [png("RGBA"), png("I;16")]
        decode_picture(png("RGBA", (9, 9)), "warm", max_pixels=10**8, longest_side=64)
        with open("/proc/self/statm") as handle:
            now = int(handle.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + 15 * 4_000 * 4_000,) * 2)
        for data in files:
            assert decode_picture(data, "x", max_pixels=10**8, longest_side=64).height == 4_000
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_want_of_memory_is_no_fault_of_the_picture(monkeypatch):
    def load(self):
        raise OSError("decoder error -9 when reading image file (out of memory)")

    data = encoded(Image.new("RGB", (5, 3)), "BMP")
    monkeypatch.setattr("PIL.BmpImagePlugin.BmpImageFile.load", load)
    with pytest.raises(MemoryError):
        decode(data)


def test_only_known_formats_are_opened_to_count_pictures():
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n"
    assert num_pictures(io.BytesIO(postscript)) == 1
    frames = [Image.new("L", (4, 4), 90 * level) for level in range(3)]
    assert num_pictures(io.BytesIO(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))) == 3


def read_mask(tmp_path, labels):
    path = tmp_path / "00000.png"
    Image.fromarray(labels).save(path)
    return read_frame_mask(str(path), ReadSettings())


def test_objects_of_a_mask_are_found_in_their_own_boxes(tmp_path):
    labels = np.zeros((40, 60), np.uint16)
    labels[3:9, 5:20], labels[30:, 50:], labels[4, 6] = 700, 2, 65_535
    objects = read_mask(tmp_path, labels).objects
    assert {number: (crop.x, crop.y, crop.width, crop.height) for number, crop in objects.items()} == {
        2: (50, 30, 10, 10),
        700: (5, 3, 15, 6),
        65_535: (6, 4, 1, 1),
    }
    assert list(objects) == [2, 700, 65_535]


def test_a_mask_of_noise_is_refused_before_each_number_is_looked_for(tmp_path):
    noise = np.random.default_rng(0).integers(0, 65536, (300, 300)).astype(np.uint16)
    with pytest.raises(BadItem, match=r"00000\.png: the boxes of its \d+ numbers cover the frame \d+ times"):
        read_mask(tmp_path, noise)


def test_void_in_a_million_regions_is_no_mask(tmp_path, monkeypatch):
    labels = np.zeros((60, 60), np.uint8)
    labels[::2, ::2] = frame_masks.VOID
    assert len(read_mask(tmp_path, labels).void) == 900
    monkeypatch.setattr(frame_masks, "MOST_REGIONS", 899)
    with pytest.raises(BadItem, match="255 stands in 900 separate regions"):
        read_mask(tmp_path, labels)
