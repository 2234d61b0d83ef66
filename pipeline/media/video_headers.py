"""What a video says about itself before anything is decoded: for planning."""

from __future__ import annotations

from dataclasses import dataclass

from trackmill.pipeline.media.containers import MOST_FPS, declared_frames, frame_rate, open_video, shown_samples
from trackmill.pipeline.media.errors import BadItem, too_many_frames
from trackmill.pipeline.media.limits import MAX_FRAMES, MAX_PIXELS
from trackmill.pipeline.media.packet_index import list_packets
from trackmill.pipeline.storage.ranges import Place, open_place

_MOST_BYTES = 4 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoHeader:
    """What a video says about itself.

    Args:
        num_frames: how many frames it has; what it declares, where it holds fewer.
        exact: counted in the sample table of an MP4 or MOV file.
        fps: average frame rate; 0 where it is not known.
        height, width: of the coded picture, before any display rotation.
    """

    num_frames: int
    exact: bool
    fps: float
    height: int
    width: int


def probe(
    where: str | Place,
    count_up_to: int = _MOST_BYTES,
    *,
    max_frames: int = MAX_FRAMES,
    max_pixels: int = MAX_PIXELS,
) -> VideoHeader:
    """Read the header of a video, a file or a part of one; of a remote file only blocks that are touched are fetched.

    MP4, MOV and AVI count their frames. Other containers state a length in seconds and a rate, of which neither has to
    fit the frames (a variable rate, a rate that is a unit of time, a length that was estimated): there the packets are
    counted, for which the whole file is read.

    Args:
        where: the file, or the part of one.
        count_up_to: in a file of more bytes packets are not counted; it is too large to be read anyway.
        max_frames: refused when it has or declares more.
        max_pixels: of one frame; nothing larger is decoded to find out what the video is.

    Raises:
        FrameLimit: more than `max_frames`.
        BadItem: not a video, no video stream in it, or a header that cannot be true.
        OSError: could not be fetched.
    """
    place = Place(where) if isinstance(where, str) else where
    url = place.name
    with open_place(place) as handle:
        num_bytes = handle.seek(0, 2)
        container, stream = open_video(handle, url, max_frames=max_frames, max_pixels=max_pixels)
        with container:
            context = stream.codec_context
            fps = frame_rate(stream)
            shown = shown_samples(container, stream)
            count = declared_frames(container, stream, handle)
            believed = count and (shown or 0 < fps <= MOST_FPS)
            if not believed and num_bytes <= count_up_to:
                found = list_packets(container, stream, handle, url, max_frames)
                count, fps = found.num_frames + found.missing, found.fps
            if count > num_bytes:
                raise BadItem(f"{url}: its header declares {count} frames, more than such a file can hold")
            if count > max_frames:
                raise too_many_frames(url, count, max_frames)
            return VideoHeader(num_frames=count, exact=shown > 0, fps=fps, height=context.height, width=context.width)
