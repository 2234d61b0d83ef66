"""The last video a worker read, kept open: the clips of one video come one after another, and share its bytes."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass
from typing import IO

from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.fetching import fetch_bytes
from trackmill.pipeline.media.videos import VideoReader
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.storage.ranges import Place, open_place
from trackmill.pipeline.storage.urls import is_local

_CHUNK_BYTES = 1 << 20


@dataclass(slots=True, kw_only=True)
class OpenVideo:
    """A video ready to be read.

    Args:
        reader: where it is in the video.
        sha256: of the whole file.
        num_bytes: size of the file.
        handle: the file, open as long as `reader` is used.
    """

    reader: VideoReader
    sha256: str
    num_bytes: int
    handle: IO[bytes]


class VideoCache:
    """Holds one open video: a remote one in memory, a local one by its file handle."""

    def __init__(self, settings: ReadSettings) -> None:
        self._settings = settings
        self._place = Place("")
        self._video: OpenVideo | None = None

    def get(self, where: str | Place) -> OpenVideo:
        """The open video in a file, or in a part of one; whichever was open before is closed.

        Raises:
            BadItem: (or a subclass) too large, or not a video.
            OSError: could not be fetched.
        """
        place = Place(where) if isinstance(where, str) else where
        if self._video is None or self._place != place:
            self.close()
            self._video = self._open(place)
            self._place = place
        return self._video

    def holds(self, place: Place) -> bool:
        """Whether this is the video that is open."""
        return self._video is not None and self._place == place

    def close(self) -> None:
        """Let go of the open video."""
        if self._video is not None:
            self._video.reader.close()
            self._video.handle.close()
        self._video = None

    def _open(self, place: Place) -> OpenVideo:
        handle, sha256, num_bytes = self._fetch(place)
        try:
            reader = VideoReader(
                handle,
                place.name,
                max_pixels=self._settings.max_pixels,
                longest_side=self._settings.longest_side,
                max_frames=self._settings.max_frames,
            )
        except BaseException:
            handle.close()
            raise
        return OpenVideo(reader=reader, sha256=sha256, num_bytes=num_bytes, handle=handle)

    def _fetch(self, place: Place) -> tuple[IO[bytes], str, int]:
        limit = self._settings.max_item_bytes
        if not is_local(place.uri):
            data = fetch_bytes(place.uri, place.offset, place.length, max_bytes=limit)
            return io.BytesIO(data), hashlib.sha256(data).hexdigest(), len(data)
        handle = open_place(place)
        try:
            size = handle.seek(0, os.SEEK_END)
            if size > limit:
                raise BadItem(f"{place.name}: {size} bytes, more than `read.max_item_bytes` = {limit}")
            handle.seek(0)
            digest = hashlib.sha256()
            while chunk := handle.read(_CHUNK_BYTES):
                digest.update(chunk)
            return handle, digest.hexdigest(), size
        except BaseException:
            handle.close()
            raise
