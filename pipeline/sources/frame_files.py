"""Clips whose frames are picture files: read in order, hashed as one, all of one size."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.fetching import fetch_bytes
from trackmill.pipeline.media.pictures import decode_picture
from trackmill.pipeline.media.scaling import annotations_of_frame
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.sources.clips import check_one_size
from trackmill.schemas.media import Annotations, Frame, Media


@dataclass(frozen=True, slots=True)
class FrameFile:
    """One frame: its file, its number in the video, and what to say when the file is not there."""

    uri: str
    index: int
    if_missing: str


def read_frame_files(
    files: Sequence[FrameFile],
    annotate: Callable[[FrameFile, int, int], Annotations | None],
    *,
    fps: float,
    num_source_frames: int,
    annotated: bool,
    license: str,
    where: str,
    settings: ReadSettings,
    amodal: bool = False,
) -> Media:
    """Decode the frames of one clip.

    Args:
        files: in order.
        annotate: what is known of a frame, in pixels of the original, given its original height and width.
        fps, num_source_frames, annotated, license, amodal: see `trackmill.schemas.media.Media`.
        where: name of the clip, for errors.
        settings: how to read.

    Raises:
        BadItem: (or a subclass) a file is missing, broken, or of another size than those before it.
        OSError: a file could not be fetched.
    """
    frames: list[Frame] = []
    conversions: list[str] = []
    digest, num_bytes, size = hashlib.sha256(), 0, (0, 0)
    for file in files:
        data = fetch_or_missing(file.uri, file.if_missing, settings)
        digest.update(data)
        num_bytes += len(data)
        picture = decode_picture(data, file.uri, max_pixels=settings.max_pixels, longest_side=settings.longest_side)
        if frames and size != (picture.height, picture.width):
            now = f"{picture.height} x {picture.width}"
            raise BadItem(f"{file.uri}: is {now}, the frames before it {size[0]} x {size[1]}")
        size = (picture.height, picture.width)
        conversions += [name for name in picture.conversions if name not in conversions]
        frames.append(
            Frame(
                image=picture.image,
                index=file.index,
                time_s=file.index / fps,
                annotations=annotations_of_frame(annotate(file, *size), size, picture.image, amodal=amodal),
                encoded=picture.encoded,
            )
        )
    check_one_size(frames, where)
    return Media(
        kind="clip",
        frames=frames,
        original_height=size[0],
        original_width=size[1],
        sha256=digest.hexdigest(),
        num_bytes=num_bytes,
        annotated=annotated,
        amodal=amodal,
        fps=fps,
        num_source_frames=num_source_frames,
        license=license,
        conversions=conversions,
    )


def fetch_or_missing(uri: str, if_missing: str, settings: ReadSettings) -> bytes:
    """Bytes of a file that the plan counts on.

    Raises:
        BadItem: it is not there, in the words of `if_missing`, or too large.
        OSError: could not be fetched.
    """
    try:
        return fetch_bytes(uri, max_bytes=settings.max_item_bytes)
    except FileNotFoundError:
        raise BadItem(if_missing) from None
