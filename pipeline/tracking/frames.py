"""Opens what is to be tracked, frame by frame: a video file, a folder of pictures, or a MOTChallenge sequence."""

from __future__ import annotations

import logging
import re

from trackmill.pipeline.formats.seqinfo import DEFAULT_FPS as SEQUENCE_FPS
from trackmill.pipeline.formats.seqinfo import parse_seqinfo
from trackmill.pipeline.isolation.limits import LimitReached
from trackmill.pipeline.isolation.remote_object import Calls
from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.sources import images, video_files
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.urls import basename, canonical, join
from trackmill.pipeline.tracking.frame_reader import DEFAULT_FPS, FrameReader, ReadLimits, name_of
from trackmill.pipeline.tracking.picture_frames import PictureFrames
from trackmill.pipeline.tracking.video_frames import VideoFrames
from trackmill.schemas.errors import InputError

log = logging.getLogger("trackmill")


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
        return PictureFrames(root.rpartition("/")[0], [(basename(root), 1)], name_of(root), DEFAULT_FPS, decoder)
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
        stem = name_of(name)
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
