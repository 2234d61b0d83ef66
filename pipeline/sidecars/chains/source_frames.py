"""Frames of the video that a sample was mined from, read again by their numbers: a file, a range of a tar, or a folder.

Only frames of the very same video count. Its SHA-256, which the sample's record holds, is compared before a frame is
given: of the whole file, or of the pictures that were stored. That also decides how the pictures of a folder are
numbered (by their place, by their number, or from the first one on): the way that gives back the bytes that were mined.

An untrusted file is decoded in a child process under limits, as mining does it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from trackmill.pipeline.isolation.limits import LimitReached, Limits, ReaderDied
from trackmill.pipeline.isolation.process import CallFailed
from trackmill.pipeline.isolation.remote_object import Calls, LocalObject, RemoteObject
from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.fetching import fetch_bytes
from trackmill.pipeline.media.limits import MAX_FRAMES, MAX_PIXELS
from trackmill.pipeline.media.pictures import decode_picture
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.sources.frame_names import find_sequences
from trackmill.pipeline.sources.video_cache import VideoCache
from trackmill.pipeline.storage.credentials import protocol_of, redact
from trackmill.pipeline.storage.list_files import FileInfo, list_files
from trackmill.pipeline.storage.ranges import Place
from trackmill.pipeline.storage.urls import basename, canonical, dirname
from trackmill.schemas.config import Settings
from trackmill.schemas.errors import InputError
from trackmill.schemas.sample import SampleRecord

Image = NDArray[np.uint8]
"""(H, W, 3) RGB at the stored size."""

GONE, CHANGED, UNREADABLE = "gone", "changed", "unreadable"
"""Why a source is not at hand."""


class SourceSettings(Settings):
    """How sources are read again. None of it changes what comes of a source that is read."""

    moved: str = Field(
        "", description="OLD=NEW: where files lie now whose paths or URLs began with OLD when they were mined."
    )
    isolate: bool = Field(
        True, description="Read in a child process under the two limits below; false: in the worker itself."
    )
    item_memory_bytes: int = Field(
        2 << 30, ge=0, description="Most memory that reading may take, or the sample is quarantined; 0: any."
    )
    item_timeout_s: float = Field(
        600.0, ge=0, description="Seconds that reading a batch of frames may take, or it is quarantined; 0: any."
    )
    max_pixels: int = Field(MAX_PIXELS, gt=0, description="As `read.max_pixels` of mining.")
    max_frames: int = Field(MAX_FRAMES, gt=0, description="As `read.max_frames` of mining.")
    max_item_bytes: int = Field(4 << 30, gt=0, description="As `read.max_item_bytes` of mining.")


class NotAtHand(InputError):
    """The video that a sample was mined from cannot be read again as it was.

    Args:
        why: `GONE`, `CHANGED` or `UNREADABLE`.
        text: says more.
    """

    def __init__(self, why: str, text: str) -> None:
        super().__init__(text)
        self.why = why


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOf:
    """What of a sample's record says where its frames came from.

    Args:
        place: file with its byte range, or folder.
        sha256: of the whole file, or of the stored frames' pictures, one after the other.
        indices: of the stored frames.
        height, width, longest_side: of stored frames.
    """

    place: Place
    sha256: str
    indices: tuple[int, ...]
    height: int
    width: int
    longest_side: int


def source_of(record: SampleRecord, moved: str = "") -> SourceOf:
    """Where the frames of a sample came from.

    Args:
        record: of the sample.
        moved: see `SourceSettings.moved`.
    """
    origin, stored = record.origin, record.stored
    uri = origin.uri
    old, mark, new = moved.partition("=")
    if mark and uri.startswith(old):
        uri = canonical(new + uri.removeprefix(old))
    offset, length = origin.byte_range or (-1, -1)
    return SourceOf(
        place=Place(uri, offset, length),
        sha256=origin.sha256,
        indices=tuple(frame.index for frame in record.frames),
        height=stored.height,
        width=stored.width,
        longest_side=stored.longest_side,
    )


def check_moved(moved: str) -> None:
    """Raise `InputError` unless `moved` is empty or `OLD=NEW`."""
    old, mark, new = moved.partition("=")
    if moved and not (old and mark and new):
        raise InputError(f"source.moved {redact(moved)!r}: should be OLD=NEW, such as /data/raw=s3://bucket/raw")


class SourceReader:
    """Reads frames of sources, in a child process unless told otherwise. Keeps the last source open.

    Args:
        settings: see `SourceSettings`.
    """

    def __init__(self, settings: SourceSettings) -> None:
        args = (settings.model_dump(mode="json"),)
        limits = Limits(settings.item_memory_bytes, settings.item_timeout_s, section="source")
        self._local = LocalObject(OpenSources, args)
        self._remote = RemoteObject(OpenSources, args, limits) if settings.isolate else None

    def read(self, source: SourceOf, indices: Sequence[int]) -> list[Image | None]:
        """Frames by their numbers, None for each that is missing or damaged.

        Raises:
            NotAtHand: the source is not there, is another one now, or cannot be read.
            LimitReached: reading takes too much memory or time.
            OSError: storage failed for good.
        """
        # What `memory://` names exists in this process alone.
        remote = self._remote if protocol_of(source.place.uri) != "memory" else None
        calls: Calls = remote or self._local
        try:
            try:
                found = calls.call("read", source, tuple(indices))
            except ReaderDied:  # perhaps for another reason, such as a machine without free memory
                found = calls.call("read", source, tuple(indices))
        except CallFailed as error:
            raise NotAtHand(UNREADABLE, str(error)) from None
        except LimitReached as error:
            raise type(error)(f"{redact(source.place.uri)}: {error}") from None
        if isinstance(found, Refusal):
            raise NotAtHand(found.why, found.text)
        return list(found)

    def close(self) -> None:
        """Let files and the child process go."""
        self._local.close()
        if self._remote is not None:
            self._remote.close()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a source is not at hand, as it travels between processes."""

    why: str
    text: str


class OpenSources:
    """Reads frames in this process; the last source stays open, since clips of one video follow each other.

    Args:
        settings: `SourceSettings`, dumped.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = SourceSettings.model_validate(settings)
        self._cache: VideoCache | None = None
        self._longest_side = 0
        self._listed: tuple[str, list[FileInfo]] = ("", [])
        self._named: tuple[SourceOf | None, dict[int, str]] = (None, {})

    def read(self, source: SourceOf, indices: Sequence[int]) -> list[Image | None] | Refusal:
        """See `SourceReader.read`."""
        try:
            images = self._of_folder(source, indices) if self._is_folder(source) else self._of_video(source, indices)
        except (FileNotFoundError, NotADirectoryError) as error:
            return Refusal(GONE, str(error))
        except BadItem as error:
            return Refusal(UNREADABLE, str(error))
        except NotAtHand as error:
            return Refusal(error.why, str(error))
        for image in images:
            if image is not None and image.shape[:2] != (source.height, source.width):
                found = f"{image.shape[0]} x {image.shape[1]}"
                return Refusal(CHANGED, f"its frames are {found} here, {source.height} x {source.width} in the shard")
        return images

    def close(self) -> None:
        """Let go of the open video."""
        if self._cache is not None:
            self._cache.close()
        self._cache = None

    def _of_video(self, source: SourceOf, indices: Sequence[int]) -> list[Image | None]:
        if self._cache is None or self._longest_side != source.longest_side:
            self.close()
            self._cache, self._longest_side = VideoCache(self._read_settings(source)), source.longest_side
        video = self._cache.get(source.place)
        if video.sha256 != source.sha256:
            raise NotAtHand(CHANGED, f"{redact(source.place.uri)}: is another file than the one that was mined")
        images: list[Image | None] = []
        for index in indices:
            try:
                images += [frame.image for frame in video.reader.read([index])]
            except BadItem:
                images.append(None)
        return images

    def _of_folder(self, source: SourceOf, indices: Sequence[int]) -> list[Image | None]:
        if self._named[0] != source:
            self._named = (source, self._names(source))
        names, images = self._named[1], list[Image | None]()
        for index in indices:
            try:
                images.append(self._picture(source, names[index]))
            except (KeyError, FileNotFoundError, BadItem):
                images.append(None)
        return images

    def _picture(self, source: SourceOf, uri: str) -> Image:
        data = fetch_bytes(uri, max_bytes=self._settings.max_item_bytes)
        limits = {"max_pixels": self._settings.max_pixels, "longest_side": source.longest_side}
        return decode_picture(data, uri, **limits).image

    def _names(self, source: SourceOf) -> dict[int, str]:
        """URI of each frame of a folder: numbered such that the stored frames have the bytes that were mined."""
        uri = source.place.uri
        if self._listed[0] != uri:
            self._listed = (uri, [file for file in list_files(uri) if dirname(file.uri) == uri.rstrip("/")])
        tried = set()
        for names in _numberings(self._listed[1]):
            stored = tuple(names.get(index, "") for index in source.indices)
            if "" in stored or stored in tried:
                continue
            tried.add(stored)
            digest = hashlib.sha256()
            for name in stored:
                digest.update(fetch_bytes(name, max_bytes=self._settings.max_item_bytes))
            if digest.hexdigest() == source.sha256:
                return names
        raise NotAtHand(CHANGED, f"{redact(uri)}: holds other pictures than those that were mined")

    def _is_folder(self, source: SourceOf) -> bool:
        if source.place.offset >= 0:
            return False
        uri = source.place.uri
        if self._listed[0] == uri:
            return True
        if self._cache is not None and self._cache.holds(source.place):
            return False
        found = list_files(uri)
        if [file.uri for file in found] == [canonical(uri)] or not found:
            return False
        self._listed = (uri, [file for file in found if dirname(file.uri) == uri.rstrip("/")])
        return True

    def _read_settings(self, source: SourceOf) -> ReadSettings:
        own = self._settings
        return ReadSettings(
            longest_side=min(max(source.longest_side, 16), 16384),
            max_pixels=own.max_pixels,
            max_frames=own.max_frames,
            max_item_bytes=own.max_item_bytes,
        )


def _numberings(files: Sequence[FileInfo]) -> Iterator[dict[int, str]]:
    """Ways in which the pictures of a folder may be numbered as frames: as sources do it, for each prefix of names."""
    for sequence in find_sequences(files):
        numbers = sequence.numbers
        uris = [sequence.files[number].uri for number in numbers]
        for shift in (numbers[0], 0):  # from the first one on (`frames`), by the number itself (`sav`)
            yield {number - shift: uri for number, uri in zip(numbers, uris)}
        yield dict(enumerate(uris))  # by place (`mot`)
    # MOTChallenge's, where pictures have more than one kind of ending.
    numbered = [file.uri for file in files if basename(file.uri).partition(".")[0].isdecimal()]
    yield dict(enumerate(sorted(numbered, key=lambda uri: int(basename(uri).partition(".")[0]))))


def indices_between(indices: Sequence[int], fps: float | None, link_fps: float) -> list[int]:
    """Numbers of the frames between stored ones, ascending.

    Args:
        indices: of the stored frames.
        fps: of the video, where it is known.
        link_fps: frames a second that are looked at, at least; 0: all.
    """
    step = max(1, math.floor(fps / link_fps)) if fps and link_fps else 1
    return [index for a, b in pairwise(indices) for index in range(a + step, b, step)]
