"""What a picture's header says, without a pixel decoded: of a remote file only the first block is fetched."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.pictures import BROKEN, FORMATS
from trackmill.pipeline.storage.files import open_for_seeking
from trackmill.pipeline.storage.retries import retry

_BLOCK_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """Size in pixels, before any EXIF rotation, and Pillow's mode: `RGB`, `L`, `P`, `I;16`, ..."""

    height: int
    width: int
    mode: str


def read_picture_header(uri: str) -> PictureHeader:
    """The header of one picture file.

    Raises:
        BadItem: not a picture.
        OSError: could not be fetched.
    """

    def look() -> PictureHeader:
        with open_for_seeking(uri, block_size=_BLOCK_BYTES) as handle:
            try:
                image = Image.open(handle, formats=FORMATS)
            except BROKEN as error:
                raise BadItem(f"{uri}: not a picture of a known format, or its header is cut") from error
            return PictureHeader(image.height, image.width, image.mode)

    return retry(look, uri)
