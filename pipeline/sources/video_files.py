"""Source `videos`: video files without annotations, cut into clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import orjson

from trackmill.pipeline.media.errors import BadItem, NothingToStore
from trackmill.pipeline.media.scaling import annotations_of_frame
from trackmill.pipeline.media.video_headers import VideoHeader, probe
from trackmill.pipeline.media.videos import VideoFrame
from trackmill.pipeline.sources.base import Claim, ReadSettings, Source
from trackmill.pipeline.sources.clips import (
    Clip,
    check_one_size,
    clip_item,
    cut_clips,
    num_kept,
    source_frames,
    stride_for,
)
from trackmill.pipeline.sources.probing import probe_files
from trackmill.pipeline.sources.video_cache import OpenVideo, VideoCache
from trackmill.pipeline.storage.list_files import FileInfo
from trackmill.pipeline.storage.ranges import Place
from trackmill.pipeline.storage.retries import retry
from trackmill.pipeline.storage.urls import basename
from trackmill.schemas.media import Annotations, Frame, Media, WorkItem

SUFFIXES = (
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".ts",
    ".mts",
    ".m2ts",
    ".mpg",
    ".mpeg",
    ".flv",
    ".wmv",
    ".asf",
    ".ogv",
    ".3gp",
)
"""What is taken for a video, by the end of its name in lower case."""


def probe_all(places: Sequence[str | Place], settings: ReadSettings) -> list[VideoHeader | str]:
    """Headers of many videos, in the order given; where one cannot be read, the reason why."""
    whole = [Place(place) if isinstance(place, str) else place for place in places]
    return list(probe_files(whole, partial(_probe, settings=settings), "videos", str))


class VideoFiles(Source):
    """Clips of up to `frames_per_clip` frames at about `label_fps` frames a second."""

    name = "videos"
    version = 1
    annotated = False
    looked_for = f"files ending in {' '.join(SUFFIXES)}"
    suffixes = SUFFIXES
    needs = rf"(?i)({'|'.join(SUFFIXES).replace('.', '[.]')})$"

    def __init__(self, settings: ReadSettings) -> None:
        super().__init__(settings)
        self._cache = VideoCache(settings)

    def claim(self, files: Sequence[FileInfo]) -> Claim:
        """Every file with the suffix of a video; named by `--source`, animated GIFs as well."""
        suffixes = (*SUFFIXES, ".gif") if self.explicit else SUFFIXES
        uris = sorted(file.uri for file in files if file.uri.lower().endswith(suffixes))
        claim = Claim(used=set(uris))
        for uri, header in zip(uris, probe_all(uris, self.settings), strict=True):
            claim.items += self._items(uri, header)
        return claim

    def read(self, item: WorkItem) -> Media:
        """Decode a clip. One at the end of a video whose length was estimated may turn out shorter."""
        details = orjson.loads(item.details)
        video = self._cache.get(item.uri)
        if "error" in details:
            raise unreadable_when_planned(item.uri, details["error"])
        reader = video.reader
        wanted = source_frames(item)
        if not details["exact"] and not reader.missing:
            wanted = [index for index in wanted if index < reader.num_frames]
        if not wanted:
            raise NothingToStore(f"{item.source_id}: the video has only {reader.num_frames} frames")
        license = self.settings.license or "unknown"
        return read_clip(video, wanted, lambda frame: None, annotated=False, license=license, where=item.source_id)

    def _items(self, uri: str, header: VideoHeader | str) -> list[WorkItem]:
        name = basename(uri).rsplit(".", 1)[0]
        if isinstance(header, str):
            return [clip_item(self.name, uri, name, Clip(0, 0, 1), 1, {"error": header})]
        stride = stride_for(header.fps, self.settings.label_fps)
        # Where the header tells no length, one clip is tried.
        kept = num_kept(header.num_frames, stride) or self.settings.frames_per_clip
        clips = cut_clips(kept, self.settings.frames_per_clip)
        return [clip_item(self.name, uri, name, clip, stride, {"exact": header.exact}) for clip in clips]


def unreadable_when_planned(uri: str, reason: str) -> NothingToStore:
    """For a video that opens now but did not when its clips were to be counted: other items take its place."""
    return NothingToStore(f"{uri}: could not be read when it was planned ({reason}); its clips are planned anew")


def read_clip(
    video: OpenVideo,
    wanted: Sequence[int],
    annotate: Callable[[VideoFrame], Annotations | None],
    *,
    annotated: bool,
    license: str,
    where: str,
) -> Media:
    """Decode some frames of an open video.

    Args:
        video: see `VideoCache.get`.
        wanted: increasing frame numbers.
        annotate: what is known of a frame, in pixels of the original.
        annotated, license: see `trackmill.schemas.media.Media`.
        where: name of the clip, for errors.

    Raises:
        BadItem: (or a subclass) a frame is missing, damaged, or of another size than the first.
    """
    decoded = list(video.reader.read(wanted))
    frames = [
        Frame(
            image=frame.image,
            index=frame.index,
            time_s=frame.time_s,
            annotations=annotations_of_frame(annotate(frame), (frame.height, frame.width), frame.image),
        )
        for frame in decoded
    ]
    check_one_size(frames, where)
    return Media(
        kind="clip",
        frames=frames,
        original_height=decoded[0].height,
        original_width=decoded[0].width,
        sha256=video.sha256,
        num_bytes=video.num_bytes,
        annotated=annotated,
        fps=video.reader.fps or None,
        num_source_frames=video.reader.num_frames,
        license=license,
        conversions=["display-rotated"] if any(frame.rotated for frame in decoded) else [],
    )


def _probe(place: Place, settings: ReadSettings) -> VideoHeader | str:
    try:
        return retry(
            lambda: probe(
                place, settings.max_item_bytes, max_frames=settings.max_frames, max_pixels=settings.max_pixels
            ),
            place.name,
        )
    except (BadItem, OSError) as error:
        return str(error)
