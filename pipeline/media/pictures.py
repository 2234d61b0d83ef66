"""One picture, whatever its format and colours, as RGB: decoded in one documented way, within a limit of pixels.

Every picture comes out as 8-bit RGB. What had to be done to it is listed by name:

- `exif-rotated`: turned or mirrored the way its EXIF orientation says.
- `gray-to-rgb`, `palette-to-rgb`, `cmyk-to-rgb`, `ycbcr-to-rgb`: converted by Pillow's arithmetic. ICC profiles are
  ignored: a profile from an untrusted file is not worth a colour shift nobody trains on.
- `alpha-over-white`: laid over white, the page that pictures with transparency are drawn for; black would swallow dark
  outlines.
- `16-bit-to-8-bit`: 65535 becomes 255. Gray is divided by 257 and rounded; of 16-bit colour Pillow decodes the upper
  byte, which is the same or one level less.
- `first-frame`: of an animation or a file of several pages.
"""

from __future__ import annotations

import errno
import io
import struct
import zlib
from dataclasses import dataclass
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from trackmill.pipeline.media.errors import BadItem, PixelLimit, TruncatedMedia
from trackmill.pipeline.media.heif import is_heic
from trackmill.pipeline.media.jpeg_files import check_jpeg_body, check_jpeg_header, is_plain_jpeg
from trackmill.pipeline.media.scaling import stored_size
from trackmill.pipeline.media.tiff_files import check_tiff_header

# Pillow would warn or raise at a limit of its own. Every picture here is checked against `read.max_pixels` instead,
# from its header; set once at import, so no thread ever sees it change.
Image.MAX_IMAGE_PIXELS = None

# All plugins now: loading them on first use is not safe while other threads decode.
Image.init()

# Named one by one: Pillow also knows formats that run another program (EPS) or open other files.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")

_JPEGS = ("JPEG", "MPO")
"""The second holds several of the first, such as a photograph and its depth; the first picture is read."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {_TURNS[5], _TURNS[6], _TURNS[7], _TURNS[8]}
_PLAIN_NAMES = {"1": "gray-to-rgb", "L": "gray-to-rgb", "P": "palette-to-rgb", "CMYK": "cmyk-to-rgb"}
# What a broken header or body makes Pillow raise, over all its plugins.
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, RuntimeError)
BROKEN = (*_DECODE_ERRORS, struct.error, zlib.error, AttributeError, AssertionError)

_STRIP_PIXELS = 1 << 22


@dataclass(slots=True, kw_only=True)
class Picture:
    """A decoded picture.

    Args:
        image: (H, W, 3) uint8 RGB at the stored size.
        height, width: original size, after any EXIF rotation.
        conversions: what was done besides scaling; the names are explained at the top of this file.
        encoded: the original JPEG bytes where they may be stored untouched, see `is_plain_jpeg`.
    """

    image: NDArray[np.uint8]
    height: int
    width: int
    conversions: list[str]
    encoded: bytes | None


def decode_picture(data: bytes, name: str, *, max_pixels: int, longest_side: int) -> Picture:
    """Decode a picture and scale it down to `longest_side` (bicubic, antialiased; never up).

    Args:
        data: the file.
        name: its URI, for the errors.
        max_pixels: refused, before decoding, when its header declares more.
        longest_side: of the result.

    Raises:
        PixelLimit: the header declares more than `max_pixels`.
        TruncatedMedia: empty, or ends early.
        BadItem: not a picture, broken, or of a kind that has no defined way to RGB.
    """
    image = open_picture(data, name, max_pixels)
    conversions = ["first-frame"] if _has_more_frames(data, image.format) else []
    deep = _deep_colour(image)
    # Pillow turns a TIFF itself while loading it, and then no longer tells its orientation.
    orientation = _orientation(image) if image.format == "TIFF" else 1
    readable = load_pixels(image, data, name)
    rgb, converted = _to_rgb(image, name)
    conversions += ["16-bit-to-8-bit", *converted] if deep else converted
    turn = _TURNS.get(_orientation(image))
    if turn is not None or orientation in _TURNS:
        conversions.append("exif-rotated")
    height, width = (rgb.width, rgb.height) if turn in _SIDEWAYS else (rgb.height, rgb.width)
    encoded = None
    if (rgb.height, rgb.width) == stored_size((rgb.height, rgb.width), longest_side):
        untouched = readable and not conversions and image.format == "JPEG" and is_plain_jpeg(data)
        encoded = data if untouched else None
    pixels = scale_pixels(rgb, longest_side)
    if turn is not None:
        pixels = pixels.transpose(turn)
    return Picture(
        image=np.array(pixels, np.uint8), height=height, width=width, conversions=conversions, encoded=encoded
    )


def scale_pixels(image: Image.Image, longest_side: int) -> Image.Image:
    """Scale an RGB image down to `longest_side`; the same filter serves pictures and videos."""
    height, width = stored_size((image.height, image.width), longest_side)
    if (height, width) == (image.height, image.width):
        return image
    # Lanczos would be a little sharper, but its rings beside edges look like contours to a proposer.
    return image.resize((width, height), Image.Resampling.BICUBIC)


def encode_jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """JPEG of an (H, W, 3) uint8 RGB array: 4:2:0, no metadata, the same bytes for the same pixels and library."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=quality, subsampling="4:2:0")
    return out.getvalue()


def open_picture(data: bytes, name: str, max_pixels: int) -> Image.Image:
    """A picture whose header has been read and checked; see `decode_picture` for what is raised."""
    if not data:
        raise TruncatedMedia(f"{name}: the file is empty")
    check_tiff_header(data, name)
    formats = ("HEIF",) if is_heic(data[:64], name) else FORMATS
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError:
        raise BadItem(f"{name}: not a picture of a known format, or its header is cut (begins {data[:8]!r})") from None
    except BROKEN as error:
        raise _named(name, error) from error
    if image.width * image.height > max_pixels:
        raise PixelLimit(
            f"{name}: declares {image.width} x {image.height} = {image.width * image.height} pixels, more than "
            f"`read.max_pixels` = {max_pixels}"
        )
    if image.width < 1 or image.height < 1:
        raise BadItem(f"{name}: declares {image.width} x {image.height} pixels")
    if image.format in _JPEGS:
        check_jpeg_header(data, name)
    return image


def _has_more_frames(data: bytes, kind: str | None) -> bool:
    if kind not in ("GIF", "TIFF", "WEBP", "PNG", "AVIF"):
        return False
    try:
        # Opened once more: to answer, Pillow goes to the second frame, and a broken one must not spoil the first.
        return bool(getattr(Image.open(io.BytesIO(data), formats=(kind,)), "is_animated", False))
    except BROKEN:
        return False


def num_pictures(handle: IO[bytes]) -> int:
    """How many pictures a file holds, as an animated GIF does; 1 where it cannot be read."""
    try:
        return int(getattr(Image.open(handle, formats=FORMATS), "n_frames", 1))
    except BROKEN:
        return 1


def load_pixels(image: Image.Image, data: bytes, name: str) -> bool:
    """Decode the pixels of an open picture; see `decode_picture` for what is raised.

    Args:
        image: from `open_picture`.
        data: the file.
        name: its URI, for the errors.

    Returns:
        Whether the decoder of the training loader would take the file as it is, if it is a JPEG.
    """
    try:
        image.load()
    except BROKEN as error:
        raise _named(name, error) from error
    return check_jpeg_body(data, name) if image.format in _JPEGS else False


def _named(name: str, error: Exception) -> BadItem:
    text = str(error) or type(error).__name__
    if "out of memory" in text or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        raise MemoryError(text)  # which is no fault of the picture
    if isinstance(error, EOFError) or "truncated" in text.lower():
        return TruncatedMedia(f"{name}: the picture ends early: {text}")
    return BadItem(f"{name}: the picture is broken: {text}")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except BROKEN:
        # Metadata that cannot be read says nothing; the pixels are still good.
        return 1


def _to_rgb(image: Image.Image, name: str) -> tuple[Image.Image, list[str]]:
    mode = image.mode
    if mode.startswith("I"):
        return _from_sixteen_bit(image, name), ["16-bit-to-8-bit", "gray-to-rgb"]
    if mode == "F":
        raise BadItem(f"{name}: floating-point pixels have no defined white; convert the picture to 8 or 16 bit")
    conversions = []
    try:
        if image.has_transparency_data:
            if mode in ("L", "LA", "La"):
                conversions.append("gray-to-rgb")
            elif mode in ("P", "PA"):
                conversions.append("palette-to-rgb")
            return _over_white(image), [*conversions, "alpha-over-white"]
        if mode == "RGB":
            return image, conversions
        return image.convert("RGB"), [*conversions, _PLAIN_NAMES.get(mode, f"{mode.lower()}-to-rgb")]
    except BROKEN as error:
        raise BadItem(f"{name}: pixels of mode {mode} cannot be converted to RGB: {error}") from error


def _over_white(image: Image.Image) -> Image.Image:
    # In strips: a hundred million pixels would take two gigabytes otherwise.
    rgb = Image.new("RGB", image.size)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        layer = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        rgb.paste(Image.alpha_composite(white, layer).convert("RGB"), (0, top))
    return rgb


def _from_sixteen_bit(image: Image.Image, name: str) -> Image.Image:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise BadItem(f"{name}: 32-bit pixels have no defined white; convert the picture to 8 or 16 bit")
    gray = np.empty(values.shape, np.uint8)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        gray[top : top + rows] = (values[top : top + rows].astype(np.int64) + 128) // 257
    return Image.fromarray(gray).convert("RGB")


def _deep_colour(image: Image.Image) -> bool:
    # Only the decoder's raw mode tells, before loading, that Pillow is going to keep the upper byte of each channel.
    for tile in cast(ImageFile.ImageFile, image).tile:
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        raw_mode = str(arguments[0])
        if ";16" in raw_mode and not raw_mode.startswith("I"):
            return True
        if tile[0] == "ppm" and image.mode == "RGB" and arguments[-1] > 255:
            return True
    return False
