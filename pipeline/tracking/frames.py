"""The frames of what is to be tracked, one at a time: a video file, a folder of pictures, or a MOTChallenge sequence.

A frame that cannot be read never stops the rest from being tracked, but is never passed over in silence: what happened
is collected in `FrameReader.problems`, and the frames after it keep their numbers. A picture file is skipped by itself,
an unreadable frame of a video together with those that refer to it.

Frames are decoded in a child process, within limits, while those before are tracked.
"""

from __future__ import annotations

import logging
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

from pydantic import Field

from trackmill.pipeline.formats.frame_numbers import FramesDoNotFit, row_shift
from trackmill.pipeline.formats.seqinfo import DEFAULT_FPS as SEQUENCE_FPS
from trackmill.pipeline.formats.seqinfo import parse_seqinfo
from trackmill.pipeline.isolation.limits import LimitReached, Limits
from trackmill.pipeline.isolation.remote_object import Calls, LocalObject, RemoteObject
from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.videos import VideoFrame
from trackmill.pipeline.sources import images, video_files
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import basename, canonical, join, list_files, read_bytes
from trackmill.pipeline.tracking.decoding import FrameDecoder, OpenedVideo, VideoPart
from trackmill.schemas.config import Settings
from trackmill.schemas.errors import InputError
from trackmill.schemas.tracking import SourceFrame

log = logging.getLogger("trackmill")

DEFAULT_FPS = 25.0
"""Where neither the video nor a `seqinfo.ini` has it; it decides only how fast the written video plays."""

_MOST_IN_A_ROW = 5
"""Places behind damage at which decoding is tried before a video is given up: each try may read the whole file."""


class ReadLimits(Settings):
    """What is refused before it is decoded, and what decoding may cost."""

    max_pixels: int = Field(100_000_000, gt=0, description="Of one frame; perhaps a decompression bomb.")
    max_item_bytes: int = Field(4 << 30, gt=0, description="Of one picture file.")
    isolate: bool = Field(
        True,
        description="Decode in a child process under the two limits below; false: in this one, for a debugger.",
    )
    item_memory_bytes: int = Field(
        2 << 30, ge=0, description="Most memory that decoding a picture or a video may take; 0: any."
    )
    item_timeout_s: float = Field(
        600.0, ge=0, description="Seconds that the next frames may take to be decoded; 0: any."
    )

    def decoder(self) -> Calls:
        """Who opens and decodes, a `FrameDecoder`."""
        args = (self.max_pixels, self.max_item_bytes)
        if not self.isolate:
            return LocalObject(FrameDecoder, args)
        return RemoteObject(FrameDecoder, args, Limits(self.item_memory_bytes, self.item_timeout_s, section="read"))


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
        self.begin_s = 0.0
        """When the first frame is shown that is read."""

    @property
    def first_number(self) -> int:
        """Number of the first frame."""
        return 1

    @property
    def last_number(self) -> int:
        """Number of the last frame."""
        return self.num_frames

    @property
    def numbers(self) -> Sequence[int]:
        """Numbers of all frames, ascending; pictures may leave some out."""
        return range(self.first_number, self.last_number + 1)

    def number_at(self, time_s: float) -> int:
        """Number of the first frame that is shown at `time_s` or later; one more than the last where there is none.

        Raises:
            InputError: it cannot be told beforehand.
        """
        raise InputError(f"{self.name}: its frames are not known beforehand, so no part of it can be taken")

    def keep_numbers(self, first: int, last: int | None) -> None:
        """Read only the frames from number `first` to `last`; None: to the end.

        Raises:
            InputError: this cannot be done here.
        """
        raise InputError(f"{self.name}: its frames are not known beforehand, so no part of it can be taken")

    def frame(self, number: int) -> SourceFrame:
        """One frame by its number, whatever was read before; not while somebody iterates.

        Raises:
            InputError: this cannot be done here, or there is no frame of this number.
            BadItem: it cannot be decoded.
            OSError: storage failed.
        """
        raise InputError(f"{self.name}: its frames are not known beforehand, so none can be read by its number")

    def read_as(self, other: FrameReader) -> None:
        """Read the same frames as another reader of this very video, under the same numbers and the same name."""
        self.name, self.num_frames, self.begin_s = other.name, other.num_frames, other.begin_s

    @abstractmethod
    def __iter__(self) -> Iterator[SourceFrame]:
        """The frames in their order.

        Raises:
            OSError: storage failed.
        """

    def close(self) -> None:  # noqa: B027  only videos hold something open
        """Let go of the file."""


class VideoFrames(FrameReader):
    """Every frame of a video file.

    Args:
        url: of the file.
        decoder: see `ReadLimits.decoder`; closed with this reader.
    """

    def __init__(self, url: str, decoder: Calls) -> None:
        self._url, self._decoder = url, decoder
        try:
            opened: OpenedVideo = decoder.call("open_video", url)
        except LimitReached as error:
            raise BadItem(f"{redact(url)}: {error}") from None
        self._fps = opened.fps
        super().__init__(_stem(url), opened.fps or DEFAULT_FPS, opened.num_frames + opened.missing)
        self._first, self._stop = 0, self.num_frames

    @property
    def first_number(self) -> int:
        """See `FrameReader.first_number`."""
        return self._first + 1

    @property
    def last_number(self) -> int:
        """See `FrameReader.last_number`."""
        return self._stop

    def number_at(self, time_s: float) -> int:
        """See `FrameReader.number_at`; of a variable frame rate by the times of its frames."""
        if not self._fps:
            return math.ceil(round(time_s * self.fps, 3)) + 1
        place: int = self._decoder.call("index_at", time_s)
        return place + 1

    def keep_numbers(self, first: int, last: int | None) -> None:
        """See `FrameReader.keep_numbers`; decoding begins at the keyframe before the first one."""
        self._first = max(self._first, first - 1)
        self._stop = self._stop if last is None else min(self._stop, last)
        self.num_frames = max(0, self._stop - self._first)
        self.begin_s = self._decoder.call("time_of", self._first) if self._fps else self._first / self.fps

    def read_as(self, other: FrameReader) -> None:
        """See `FrameReader.read_as`."""
        super().read_as(other)
        if isinstance(other, VideoFrames):
            self._first, self._stop = other._first, other._stop

    def __iter__(self) -> Iterator[SourceFrame]:
        index: int | None = self._first
        in_a_row = 0
        self._decoder.ask("read_video", index, self._stop)
        while index is not None:
            try:
                part: VideoPart = self._decoder.answer()
                in_a_row = (0 if part.frames else in_a_row) + bool(part.problem)
                index = part.next_index if in_a_row < _MOST_IN_A_ROW else None
                if index is not None:
                    self._decoder.ask("read_video", index, self._stop)
            except LimitReached as error:
                self.problems.append(f"{redact(self._url)}: the frames from {index} on are left out: {error}")
                return
            yield from map(self._frame, part.frames)
            if part.problem:
                goes_on = f"; the next one that can is frame {index}" if index is not None else ""
                self.problems.append(f"{part.problem}{goes_on}")

    def frame(self, number: int) -> SourceFrame:
        """See `FrameReader.frame`; decoding begins at the keyframe before it."""
        if not self.first_number <= number <= self.last_number:
            raise InputError(f"{self.name}: no frame {number}: they are {self.first_number} to {self.last_number}")
        try:
            part: VideoPart = self._decoder.call("read_video", number - 1, number)
        except LimitReached as error:
            raise BadItem(f"{redact(self._url)}: {error}") from None
        if not part.frames:
            raise BadItem(part.problem or f"{redact(self._url)}: frame {number} is missing")
        return self._frame(part.frames[0])

    def _frame(self, frame: VideoFrame) -> SourceFrame:
        return SourceFrame(
            index=frame.index,
            number=frame.index + 1,
            time_s=frame.time_s if self._fps else frame.index / self.fps,
            image=frame.image,
            file_name=f"{self.name}/{frame.index:06d}",
        )

    def close(self) -> None:
        """Free the decoder and the file."""
        self._decoder.close()


class PictureFrames(FrameReader):
    """Picture files in the order of their numbers; sizes may differ from one to the next.

    Args:
        folder: URL of the folder.
        files: names in it, and the number of each frame.
        name, fps: see `FrameReader`.
        decoder: see `ReadLimits.decoder`; closed with this reader.
    """

    def __init__(self, folder: str, files: list[tuple[str, int]], name: str, fps: float, decoder: Calls) -> None:
        super().__init__(name, fps, len(files))
        self._folder, self._decoder = folder, decoder
        self._skipped = 0
        self._number(files)

    def _number(self, files: list[tuple[str, int]]) -> None:
        self._files = files
        self.file_names = {file: number - 1 for file, number in files}

    def shift_to(self, rows: Iterable[int], where: str) -> int:
        """What is added to the number of a frame to get that of its rows in a MOTChallenge file, see `row_shift`.

        Args:
            rows: frame numbers of the file.
            where: the file, for messages.

        Raises:
            InputError: neither the numbers nor the places of the pictures fit; says what to do.
        """
        try:
            return row_shift(self.numbers, rows)
        except FramesDoNotFit as error:
            raise InputError(f"{where}: {error}") from None

    def fit_rows(self, rows: Iterable[int], where: str) -> None:
        """Number the frames as the rows of a MOTChallenge file do, where the pictures are not numbered from 1.

        Arguments and errors as in `shift_to`.
        """
        shift = self.shift_to(rows, where)
        if shift:
            first = self._files[0][0]
            log.warning("%s: the pictures begin with %s: it is frame 1, the next one 2, and so on", where, first)
            self._number([(name, number + shift) for name, number in self._files])

    @property
    def first_number(self) -> int:
        """See `FrameReader.first_number`."""
        return self._files[0][1]

    @property
    def last_number(self) -> int:
        """See `FrameReader.last_number`."""
        return self._files[-1][1]

    @property
    def numbers(self) -> Sequence[int]:
        """See `FrameReader.numbers`."""
        return [number for _, number in self._files]

    def number_at(self, time_s: float) -> int:
        """See `FrameReader.number_at`."""
        place = math.ceil(round(time_s * self.fps, 3))
        return self._files[place][1] if place < len(self._files) else self.last_number + 1

    def keep_numbers(self, first: int, last: int | None) -> None:
        """See `FrameReader.keep_numbers`; the other pictures are not decoded."""
        kept = [(name, number) for name, number in self._files if number >= first and (last is None or number <= last)]
        self._skipped += sum(number < first for _, number in self._files)
        self.num_frames, self.begin_s = len(kept), self._skipped / self.fps
        self._number(kept)

    def read_as(self, other: FrameReader) -> None:
        """See `FrameReader.read_as`."""
        super().read_as(other)
        if isinstance(other, PictureFrames):
            self._skipped = other._skipped
            self._number(other._files)

    def __iter__(self) -> Iterator[SourceFrame]:
        for index, (name, number) in enumerate(self._files):
            url = join(self._folder, name)
            try:
                # The first one was not asked for while another one was tracked.
                image = self._decoder.answer() if index else self._decoder.call("read_picture", url)
            except LimitReached as error:
                self.problems.append(f"{redact(url)}: {error}")
                image = None
            except (BadItem, FileNotFoundError) as error:
                self.problems.append(str(error))
                image = None
            if index + 1 < len(self._files):
                self._decoder.ask("read_picture", join(self._folder, self._files[index + 1][0]))
            if image is not None:
                place = self._skipped + index
                yield SourceFrame(index=place, number=number, time_s=place / self.fps, image=image, file_name=name)

    def frame(self, number: int) -> SourceFrame:
        """See `FrameReader.frame`."""
        found = [(place, name) for place, (name, each) in enumerate(self._files) if each == number]
        if not found:
            raise InputError(f"{self.name}: no frame {number}: they are {self.first_number} to {self.last_number}")
        place, name = self._skipped + found[0][0], found[0][1]
        try:
            image = self._decoder.call("read_picture", join(self._folder, name))
        except LimitReached as error:
            raise BadItem(f"{redact(join(self._folder, name))}: {error}") from None
        return SourceFrame(index=place, number=number, time_s=place / self.fps, image=image, file_name=name)

    def close(self) -> None:
        """Free the decoder."""
        self._decoder.close()


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
    decoder = (settings or ReadLimits()).decoder()
    try:
        return _open(url, decoder)
    except BaseException:
        decoder.close()
        raise


def _open(url: str, decoder: Calls) -> FrameReader:
    root = canonical(url)
    files = [file.uri for file in list_files(root)]
    if files == [root]:
        if not root.lower().endswith(images.SUFFIXES) or _is_animated(root, decoder):
            return VideoFrames(root, decoder)
        return PictureFrames(root.rpartition("/")[0], [(basename(root), 1)], _stem(root), DEFAULT_FPS, decoder)
    seqinfo = join(root, "seqinfo.ini")
    folder, fps = _seqinfo(seqinfo) if seqinfo in files else ("img1", SEQUENCE_FPS)
    sequence = join(root, folder)
    pictures = _pictures_in(sequence, files)
    if pictures:
        numbered = _by_own_numbers(pictures, sequence)
        if numbered[0][1] == 0:  # MOTChallenge counts frames from 1
            log.warning("%s: the pictures begin with %s: it is frame 1 here", redact(sequence), numbered[0][0])
            numbered = [(name, number + 1) for name, number in numbered]
        return PictureFrames(sequence, numbered, basename(root), fps, decoder)
    pictures = _pictures_in(root, files)
    if len(pictures) == 1 and _is_animated(join(root, pictures[0]), decoder):
        return VideoFrames(join(root, pictures[0]), decoder)
    if pictures:
        numbered = [(name, index + 1) for index, name in enumerate(sorted(pictures, key=_natural))]
        return PictureFrames(root, numbered, basename(root), DEFAULT_FPS, decoder)
    videos = [uri for uri in files if uri.rpartition("/")[0] == root and uri.lower().endswith(video_files.SUFFIXES)]
    if len(videos) == 1:
        return VideoFrames(videos[0], decoder)
    found = f"{len(videos)} videos and no pictures" if videos else "neither pictures nor a video"
    raise InputError(f"{redact(url)}: holds {found}; give one video, a folder of pictures, or a MOTChallenge sequence")


def _is_animated(url: str, decoder: Calls) -> bool:
    """Whether a GIF or PNG holds more than one picture.

    Raises:
        InputError: several pictures in a file of another kind, of which FFmpeg makes no video.
    """
    if not url.lower().endswith((".gif", ".png", ".webp", ".avif", ".tif", ".tiff")):
        return False
    try:
        number: int = decoder.call("count_pictures", url)
    except LimitReached as error:
        raise BadItem(f"{redact(url)}: {error}") from None
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
