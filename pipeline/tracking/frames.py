"""The frames of what is to be tracked, one at a time: a video file, a folder of pictures, or a MOTChallenge sequence.

A frame that cannot be read never stops the rest from being tracked, but is never passed over in silence: what happened
is collected in `FrameReader.problems`, and the frames after it keep their numbers. A picture file is skipped by itself,
an unreadable frame of a video together with those that refer to it.
"""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

from pydantic import Field

from trackmill.pipeline.formats.frame_numbers import FramesDoNotFit, row_shift
from trackmill.pipeline.formats.seqinfo import DEFAULT_FPS as SEQUENCE_FPS
from trackmill.pipeline.formats.seqinfo import parse_seqinfo
from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.fetching import fetch_bytes
from trackmill.pipeline.media.pictures import decode_picture, num_pictures
from trackmill.pipeline.media.videos import VideoReader
from trackmill.pipeline.sources import images, video_files
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import basename, canonical, join, list_files, open_for_seeking, read_bytes
from trackmill.schemas.config import Settings
from trackmill.schemas.errors import InputError
from trackmill.schemas.tracking import SourceFrame

log = logging.getLogger("trackmill")

DEFAULT_FPS = 25.0
"""Where neither the video nor a `seqinfo.ini` has it; it decides only how fast the written video plays."""

_MOST_IN_A_ROW = 5
"""Places behind damage at which decoding is tried before a video is given up: each try may read the whole file."""

# Frames are looked at in full: detections are in pixels of the original.
_FULL_SIZE = 1 << 30


class ReadLimits(Settings):
    """What is refused before it is decoded."""

    max_pixels: int = Field(100_000_000, gt=0, description="Of one frame; perhaps a decompression bomb.")
    max_item_bytes: int = Field(4 << 30, gt=0, description="Of one picture file.")


class FrameReader(ABC):
    """Frames of one sequence; iterate over it once.

    Args:
        name: of the sequence; output files are called by it.
        fps: frames per second.
        num_frames: how many are expected, for the progress line.
    """

    def __init__(self, name: str, fps: float, num_frames: int) -> None:
        self.name, self.fps, self.num_frames = name, fps, num_frames
        self.problems: list[str] = []
        """What could not be read so far."""
        self.file_names: dict[str, int] = {}
        """Number, less 1, of the frame in each picture file; empty for a video."""

    @abstractmethod
    def __iter__(self) -> Iterator[SourceFrame]:
        """The frames in their order.

        Raises:
            OSError: storage failed.
        """

    def close(self) -> None:  # noqa: B027  only videos hold something open
        """Let go of the file."""


class VideoFrames(FrameReader):
    """Every frame of a video file; a remote one is fetched in blocks as it is decoded."""

    def __init__(self, url: str, settings: ReadLimits) -> None:
        self._url = url
        self._handle = open_for_seeking(url)
        try:
            self._reader = VideoReader(
                self._handle, redact(url), max_pixels=settings.max_pixels, longest_side=_FULL_SIZE
            )
        except BaseException:
            self._handle.close()
            raise
        super().__init__(_stem(url), self._reader.fps or DEFAULT_FPS, self._reader.num_frames + self._reader.missing)

    def __iter__(self) -> Iterator[SourceFrame]:
        index: int | None = 0
        in_a_row = 0
        while index is not None:
            try:
                for frame in self._reader.read(range(index, self.num_frames)):
                    index, in_a_row = frame.index + 1, 0
                    yield SourceFrame(
                        index=frame.index,
                        number=frame.index + 1,
                        time_s=frame.time_s if self._reader.fps else frame.index / self.fps,
                        image=frame.image,
                        file_name=f"{self.name}/{frame.index:06d}",
                    )
                return
            except BadItem as error:
                in_a_row += 1
                index = self._reader.next_start(index) if in_a_row < _MOST_IN_A_ROW else None
                goes_on = f"; the next one that can is frame {index}" if index is not None else ""
                self.problems.append(f"{error}{goes_on}")

    def close(self) -> None:
        """Free the decoder and the file."""
        self._reader.close()
        self._handle.close()


class PictureFrames(FrameReader):
    """Picture files in the order of their numbers; sizes may differ from one to the next.

    Args:
        folder: URL of the folder.
        files: names in it, and the number of each frame.
        name, fps: see `FrameReader`.
        settings: limits of reading.
    """

    def __init__(self, folder: str, files: list[tuple[str, int]], name: str, fps: float, settings: ReadLimits) -> None:
        super().__init__(name, fps, len(files))
        self._folder, self._settings = folder, settings
        self._number(files)

    def _number(self, files: list[tuple[str, int]]) -> None:
        self._files = files
        self.file_names = {file: number - 1 for file, number in files}

    def fit_rows(self, rows: Iterable[int], where: str) -> None:
        """Number the frames as the rows of a MOTChallenge file do, where the pictures are not numbered from 1.

        Args:
            rows: frame numbers of the file.
            where: the file, for messages.

        Raises:
            InputError: neither the numbers nor the places of the pictures fit; says what to do.
        """
        try:
            shift = row_shift([number for _, number in self._files], rows)
        except FramesDoNotFit as error:
            raise InputError(f"{where}: {error}") from None
        if shift:
            first = self._files[0][0]
            log.warning("%s: the pictures begin with %s: it is frame 1, the next one 2, and so on", where, first)
            self._number([(name, number + shift) for name, number in self._files])

    def __iter__(self) -> Iterator[SourceFrame]:
        limits = self._settings
        for index, (name, number) in enumerate(self._files):
            url = join(self._folder, name)
            try:
                data = fetch_bytes(url, max_bytes=limits.max_item_bytes)
                picture = decode_picture(data, redact(url), max_pixels=limits.max_pixels, longest_side=_FULL_SIZE)
            except (BadItem, FileNotFoundError) as error:
                self.problems.append(str(error))
                continue
            yield SourceFrame(index=index, number=number, time_s=index / self.fps, image=picture.image, file_name=name)


def open_frames(url: str, settings: ReadLimits | None = None) -> FrameReader:
    """Look at what is there and open it.

    Args:
        url: a video file or an animated GIF; a folder of pictures, in the order of the numbers in their names; a
            MOTChallenge sequence (`img1/` and perhaps `seqinfo.ini`, or a single video beside `gt/` and `det/`).
        settings: limits of reading.

    Raises:
        ValueError: nothing there that can be tracked, or more than one thing; says what was found.
        BadItem: (a ValueError) a video without a readable frame.
        OSError: it could not be read.
    """
    settings = settings or ReadLimits()
    root = canonical(url)
    files = [file.uri for file in list_files(root)]
    if files == [root]:
        if not root.lower().endswith(images.SUFFIXES) or _is_animated(root):
            return VideoFrames(root, settings)
        return PictureFrames(root.rpartition("/")[0], [(basename(root), 1)], _stem(root), DEFAULT_FPS, settings)
    seqinfo = join(root, "seqinfo.ini")
    folder, fps = _seqinfo(seqinfo) if seqinfo in files else ("img1", SEQUENCE_FPS)
    sequence = join(root, folder)
    pictures = _pictures_in(sequence, files)
    if pictures:
        numbered = _by_own_numbers(pictures, sequence)
        if numbered[0][1] == 0:  # MOTChallenge counts frames from 1
            log.warning("%s: the pictures begin with %s: it is frame 1 here", redact(sequence), numbered[0][0])
            numbered = [(name, number + 1) for name, number in numbered]
        return PictureFrames(sequence, numbered, basename(root), fps, settings)
    pictures = _pictures_in(root, files)
    if len(pictures) == 1 and _is_animated(join(root, pictures[0])):
        return VideoFrames(join(root, pictures[0]), settings)
    if pictures:
        numbered = [(name, index + 1) for index, name in enumerate(sorted(pictures, key=_natural))]
        return PictureFrames(root, numbered, basename(root), DEFAULT_FPS, settings)
    videos = [uri for uri in files if uri.rpartition("/")[0] == root and uri.lower().endswith(video_files.SUFFIXES)]
    if len(videos) == 1:
        return VideoFrames(videos[0], settings)
    found = f"{len(videos)} videos and no pictures" if videos else "neither pictures nor a video"
    raise InputError(f"{redact(url)}: holds {found}; give one video, a folder of pictures, or a MOTChallenge sequence")


def _is_animated(url: str) -> bool:
    """Whether a GIF or PNG holds more than one picture.

    Raises:
        InputError: several pictures in a file of another kind, of which FFmpeg makes no video.
    """
    if not url.lower().endswith((".gif", ".png", ".webp", ".avif", ".tif", ".tiff")):
        return False
    with open_for_seeking(url) as handle:
        number = num_pictures(handle)
    if number > 1 and not url.lower().endswith((".gif", ".png")):
        raise InputError(f"{redact(url)}: holds {number} pictures, which cannot be tracked as they are; make an MP4")
    return number > 1


def _pictures_in(folder: str, files: list[str]) -> list[str]:
    return [
        basename(uri) for uri in files if uri.rpartition("/")[0] == folder and uri.lower().endswith(images.SUFFIXES)
    ]


def _by_own_numbers(names: list[str], folder: str) -> list[tuple[str, int]]:
    numbers: dict[int, str] = {}
    for name in sorted(names):
        stem = _stem(name)
        if not stem.isdecimal():
            raise InputError(
                f"{redact(folder)}/{name}: a frame of a MOT sequence is called by its number, as 000001.jpg"
            )
        if int(stem) in numbers:
            raise InputError(f"{redact(folder)}: {numbers[int(stem)]} and {name} are both frame {int(stem)}")
        numbers[int(stem)] = name
    return [(numbers[number], number) for number in sorted(numbers)]


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sorts `frame_2` before `frame_10`."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]


def _seqinfo(url: str) -> tuple[str, float]:
    try:
        return parse_seqinfo(read_bytes(url, max_bytes=1 << 16).decode("utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{redact(url)}: cannot be used: {error}") from None


def _stem(url: str) -> str:
    return basename(url).rpartition(".")[0] or basename(url)
