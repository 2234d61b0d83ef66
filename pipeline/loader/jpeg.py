"""Decodes JPEG with the fastest installed decoder."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.shards.decode import MAX_PIXELS, decode_jpeg
from trackmill.pipeline.shards.stream import BadShardMember

try:
    import simplejpeg
except ImportError:  # slower, not different: `pip install -e ".[train]"` brings it
    simplejpeg = None


def decode(data: bytes | memoryview, shard: str, member: str, height: int, width: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a JPEG that must have the given size; the size is checked before any pixel is decoded.

    Without `simplejpeg` Pillow decodes; both use libjpeg-turbo's exact transform and smooth chroma.

    Args:
        data: the JPEG.
        shard, member: for messages.
        height, width: in pixels, from the record.

    Raises:
        BadShardMember: the JPEG has another size or format, or is damaged.
    """
    if simplejpeg is None:
        return decode_jpeg(bytes(data), shard, member, height, width)
    try:
        found_height, found_width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if (found_height, found_width) != (height, width) or height * width > MAX_PIXELS:
            raise BadShardMember(
                shard, member, f"is {found_height} x {found_width}, its record says {height} x {width}; not decoded"
            )
        if colours in ("CMYK", "YCCK"):  # libjpeg-turbo cannot convert these to RGB
            return decode_jpeg(bytes(data), shard, member, height, width)
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
        return pixels
    except BadShardMember:
        raise
    except Exception as error:  # the decoder may raise anything on hostile bytes
        raise BadShardMember(shard, member, f"is not a whole JPEG ({error})") from None
