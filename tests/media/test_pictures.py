"""Pictures of every kind become the RGB that was meant, or are refused with a clear text."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.make_media import jpeg_bytes, make_scene
from trackmill.pipeline.media.errors import BadItem, PixelLimit, TruncatedMedia
from trackmill.pipeline.media.jpeg_files import is_plain_jpeg
from trackmill.pipeline.media.mask_pictures import decode_mask_picture
from trackmill.pipeline.media.pictures import decode_picture, encode_jpeg


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG written chunk by chunk, for kinds that Pillow does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def decode(data: bytes, longest_side: int = 64, max_pixels: int = 10_000_000):
    return decode_picture(data, "file:///x.img", max_pixels=max_pixels, longest_side=longest_side)


def flat(mode: str, colour: object) -> Image.Image:
    return Image.new(mode, (5, 3), colour)


def with_transparent_entry() -> bytes:
    image = flat("P", 0)
    image.putpalette([0, 0, 0, 200, 10, 20])
    return encoded(image, transparency=0)


SIXTEEN_GRAY = np.array([[0, 257, 32896, 65535]], np.uint16)

CASES = {
    # name: (file, expected colour of the first pixel, expected conversions)
    "rgb": (encoded(flat("RGB", (1, 2, 3))), (1, 2, 3), []),
    "gray": (encoded(flat("L", 7)), (7, 7, 7), ["gray-to-rgb"]),
    "one bit": (encoded(flat("1", 1)), (255, 255, 255), ["gray-to-rgb"]),
    "palette": (encoded(flat("RGB", (9, 8, 7)).convert("P", palette=1)), (9, 8, 7), ["palette-to-rgb"]),
    "palette with a transparent entry": (
        with_transparent_entry(),
        (255, 255, 255),
        ["palette-to-rgb", "alpha-over-white"],
    ),
    "half transparent": (encoded(flat("RGBA", (0, 0, 0, 51))), (204, 204, 204), ["alpha-over-white"]),
    "gray with alpha": (encoded(flat("LA", (10, 0))), (255, 255, 255), ["gray-to-rgb", "alpha-over-white"]),
    "cmyk": (encoded(flat("CMYK", (255, 0, 0, 0)), "TIFF"), (0, 255, 255), ["cmyk-to-rgb"]),
    "webp": (encoded(flat("RGB", (10, 20, 30)), "WEBP", lossless=True), (10, 20, 30), []),
    "bmp": (encoded(flat("RGB", (10, 20, 30)), "BMP"), (10, 20, 30), []),
    "16-bit gray tiff": (
        encoded(Image.fromarray(np.full((3, 5), 32896, np.uint16)), "TIFF"),
        (128, 128, 128),
        ["16-bit-to-8-bit", "gray-to-rgb"],
    ),
    "16-bit colour": (
        png(1, 1, 16, 2, b"\0" + struct.pack(">HHH", 65535, 0, 32896)),
        (255, 0, 128),
        ["16-bit-to-8-bit"],
    ),
    "16-bit colour with alpha": (
        png(1, 1, 16, 6, b"\0" + struct.pack(">HHHH", 0, 0, 0, 0)),
        (255, 255, 255),
        ["16-bit-to-8-bit", "alpha-over-white"],
    ),
    "animation": (
        encoded(flat("RGB", (250, 0, 0)), "GIF", save_all=True, append_images=[flat("RGB", (0, 0, 250))]),
        (250, 0, 0),
        ["first-frame", "palette-to-rgb"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_kind_becomes_rgb(case):
    data, colour, conversions = CASES[case]
    picture = decode(data)
    assert picture.image.dtype == np.uint8 and picture.image.shape[2] == 3
    assert tuple(picture.image[0, 0]) == colour
    assert picture.conversions == conversions
    assert picture.encoded is None


def test_sixteen_bit_gray_is_divided_by_257():
    picture = decode(encoded(Image.fromarray(SIXTEEN_GRAY)))
    assert picture.image[0, :, 0].tolist() == [0, 1, 128, 255]


def test_adobe_cmyk_jpeg_keeps_its_colour():
    picture = decode(encoded(flat("CMYK", (0, 255, 255, 0)), "JPEG", quality=95))
    red, green, blue = picture.image[1, 2].tolist()
    assert red > 240 and green < 15 and blue < 15
    assert picture.conversions == ["cmyk-to-rgb"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(orientation, kind):
    upright = np.zeros((20, 32, 3), np.uint8)
    upright[:8, :12] = 255  # one corner tells all eight apart
    upright[:8, 12:20] = 128
    undo = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
    moves = {2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.transpose(1, 0, 2)}
    moves |= {6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).transpose(1, 0, 2), 8: lambda a: np.rot90(a, 1)}
    stored = np.ascontiguousarray(moves[undo[orientation]](upright)) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = decode(encoded(Image.fromarray(stored), kind, exif=exif.tobytes()))
    assert (picture.height, picture.width) == (20, 32)
    assert np.abs(picture.image.astype(int) - upright).mean() < 12
    assert ("exif-rotated" in picture.conversions) == (orientation > 1)
    assert picture.encoded is None


@pytest.mark.parametrize(
    ("size", "limit", "expected"),
    [
        ((100, 200), 50, (25, 50)),  # down to the limit
        ((100, 50), 64, (64, 32)),  # portrait
        ((10, 20), 64, (10, 20)),  # never up
        ((1000, 1), 16, (16, 1)),  # a side never becomes zero
        ((1, 1), 16, (1, 1)),
    ],
)
def test_scaling(size, limit, expected):
    picture = decode(encoded(Image.new("RGB", size[::-1], (40, 50, 60))), longest_side=limit)
    assert picture.image.shape == (*expected, 3)
    assert (picture.height, picture.width) == size
    assert (picture.image == (40, 50, 60)).all()


def test_scaling_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    picture = decode(encoded(Image.fromarray(stripes)), longest_side=16)
    assert np.abs(picture.image.astype(int) - 127).max() < 25


def test_pixel_limit_is_checked_before_decoding():
    # 100000 x 100000 pixels in its header and no pixel behind it: decoding would fail in another way.
    bomb = png(100_000, 100_000, 8, 2, b"")
    with pytest.raises(PixelLimit, match=r"file:///x\.img.*10000000000 pixels"):
        decode(bomb)
    with pytest.raises(PixelLimit):
        decode_mask_picture(bomb, "file:///x.png", max_pixels=1000)


def test_pillows_own_limit_does_not_interfere(recwarn):
    # 200 million pixels: Pillow alone would refuse. Allowed here, so what is wrong is that no pixel follows.
    with pytest.raises(BadItem) as raised:
        decode(png(20_000, 10_000, 1, 0, b""), max_pixels=200_000_000)
    assert not isinstance(raised.value, PixelLimit)
    assert not [each for each in recwarn.list if issubclass(each.category, Image.DecompressionBombWarning)]


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (b"", TruncatedMedia, "empty"),
        (b"hello, world", BadItem, "not a picture"),
        (jpeg_bytes(make_scene(48, 64)[0])[:900], TruncatedMedia, "ends early"),
        (jpeg_bytes(make_scene(48, 64)[0])[:12], BadItem, "x.img"),
        (encoded(Image.fromarray(make_scene(48, 64)[0]))[:2000], BadItem, "x.img"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", BadItem, "not a picture"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), BadItem, "floating-point"),
        (encoded(Image.fromarray(np.full((2, 2), 1 << 20, np.int32)), "TIFF"), BadItem, "32-bit"),
    ],
)
def test_bad_files_are_named(data, error, text):
    with pytest.raises(error, match=text) as raised:
        decode(data)
    assert "file:///x.img" in str(raised.value)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_bytes_never_raise_anything_else():
    rng = np.random.default_rng(0)
    originals = [jpeg_bytes(make_scene(48, 64)[0], orientation=6), encoded(Image.fromarray(make_scene(16, 16)[0]))]
    originals += [encoded(flat("RGB", (1, 2, 3)), kind) for kind in ("TIFF", "GIF", "BMP", "WEBP", "JPEG2000")]
    for original in originals:
        for _ in range(60):
            data = bytearray(original)
            for place in rng.integers(0, min(len(data), 300), 4):
                data[place] = rng.integers(256)
            try:
                assert decode(bytes(data)).image.ndim == 3
            except BadItem as error:
                assert "x.img" in str(error)


def test_plain_jpeg_is_passed_through():
    image = make_scene(48, 64)[0]
    for options in ({}, {"progressive": True}):
        data = encoded(Image.fromarray(image), "JPEG", **options)
        assert decode(data).encoded == data
        assert decode(data, longest_side=32).encoded is None


@pytest.mark.parametrize(
    "data",
    [
        jpeg_bytes(make_scene(48, 64)[0], orientation=1),  # EXIF, even when it turns nothing
        jpeg_bytes(make_scene(48, 64)[0], mode="L"),
        encoded(flat("CMYK", (0, 0, 0, 0)), "JPEG"),
        encoded(flat("RGB", (0, 0, 0)), "JPEG", comment=b"home address"),
        jpeg_bytes(make_scene(48, 64)[0]) + b"a video that a phone hung onto it\xff\xd9",
    ],
    ids=["exif", "gray", "cmyk", "comment", "appended"],
)
def test_jpeg_that_may_tell_more_is_encoded_anew(data):
    assert not is_plain_jpeg(data)
    assert decode(data).encoded is None


def test_encode_jpeg_repeats_itself_and_holds_no_metadata():
    image = make_scene(48, 64)[0]
    data = encode_jpeg(image, 92)
    assert data == encode_jpeg(image.copy(), 92) and is_plain_jpeg(data)
    assert np.abs(decode(data).image.astype(int) - image).mean() < 6
    assert encode_jpeg(np.zeros((7, 1, 3), np.uint8), 90)


def test_mask_is_everything_but_zero():
    values = np.array([[0, 1, 255]], np.uint8)
    for image in (Image.fromarray(values), Image.fromarray(values).convert("P"), Image.fromarray(values > 0)):
        assert decode_mask_picture(encoded(image), "m.png", max_pixels=100).tolist() == [[False, True, True]]
