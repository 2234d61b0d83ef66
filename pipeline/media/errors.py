"""What can be wrong with an item; the job quarantines it with the error's text and goes on."""

from __future__ import annotations

from trackmill.schemas.errors import InputError


class BadItem(InputError):
    """The item's data is broken: it is quarantined with this text and the job goes on."""


class MissingAnnotation(BadItem):
    """A data set that promises annotations has none for this item."""


class TruncatedMedia(BadItem):
    """A picture or video ends before it should."""


class DamagedFrame(TruncatedMedia):
    """A frame of a video cannot be decoded; later ones may well be."""


class PixelLimit(BadItem):
    """A picture or video declares more pixels than `read.max_pixels`: perhaps a decompression bomb."""


class FrameLimit(BadItem):
    """A video has, or declares, more frames than `read.max_frames`: what is known of each takes memory."""


def too_many_frames(name: str, count: int, most: int) -> FrameLimit:
    """For a video that has, or declares, `count` frames or more."""
    return FrameLimit(f"{name}: has {count} frames, more than `read.max_frames` = {most}")


class NothingToStore(Exception):
    """The item holds no frame (it lies past the end of a video of unknown length): skipped, not an error."""
