"""Reads the pictures of a MOT-style sequence by frame number, in order, from files in a folder or from one video."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import open_for_seeking, read_bytes
from trackmill.pipeline.storage.list_files import FileInfo, list_files
from trackmill.pipeline.storage.urls import basename, dirname, join

MAX_PIXELS = 100_000_000
_ANY_SIDE = 1 << 30
_PICTURE = re.compile(r"^(?P<number>\d{1,18})\.(?:jpe?g|png|webp|bmp)$", re.IGNORECASE)


def find_pictures(root: str, name: str) -> SequencePictures:
    """The frames of one sequence; no file is accessed before one is asked for.

    Frame n is NAME/img1/n.jpg (any number of leading zeros, also .png, .webp, .bmp; also without the folder img1), or
    the n-th frame of NAME/NAME.mp4 or NAME.mp4 (any container).

    Args:
        root: URL of the folder that holds NAME.
        name: name of the sequence.
    """
    return SequencePictures(root, name)


class SequencePictures:
    """See `find_pictures`.

    Raises (whatever is called):
        BadTracks: there are no pictures, a frame is missing, or a picture or video cannot be decoded.
        OSError: a file cannot be read.
    """

    def __init__(self, root: str, name: str) -> None:
        self._root, self._name = root, name

    def __call__(self, wanted: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """The pictures of these frames, see `FrameReader`."""
        # Imported late: embeddings read from files need no decoder.
        from trackmill.pipeline.media.errors import BadItem

        try:
            pictures, video = self._found()
            yield from _from_files(pictures, wanted, self._name) if pictures else _from_video(video, wanted)
        except BadItem as error:
            raise BadTracks(str(error)) from None

    def up_to(self, last: int) -> list[int]:
        """Numbers of the frames that there are, ascending, up to `last`."""
        pictures, _ = self._found()
        return sorted(each for each in pictures if each <= last) if pictures else list(range(1, last + 1))

    def _found(self) -> tuple[dict[int, str], str]:
        """URLs of pictures by frame number, or else that of a video."""
        from trackmill.pipeline.sources.video_files import SUFFIXES

        root, name = self._root, self._name
        files = _listed(join(root, name))
        pictures = _pictures(files, join(root, name))
        if pictures:
            return pictures, ""
        videos = [file.uri for file in files if file.uri.lower().endswith(SUFFIXES)]
        if not videos:
            videos = [file.uri for file in _listed(join(root, f"{name}.*")) if file.uri.lower().endswith(SUFFIXES)]
        if len(videos) != 1:
            known = f"{len(videos)} videos" if videos else "no picture or video"
            raise BadTracks(
                f"{redact(join(root, name))}: {known} there; the pictures should be {name}/img1/000001.jpg, ... or "
                f"{name}/{name}.mp4 below the folder given as --pictures"
            )
        return {}, videos[0]


def _listed(url: str) -> list[FileInfo]:
    try:
        return list_files(url)
    except FileNotFoundError:
        return []


def _pictures(files: list[FileInfo], folder: str) -> dict[int, str]:
    """URLs by frame number, from the folder `img1` or else from the sequence's own folder."""
    for wanted in ("img1", basename(folder)):
        by_number: dict[int, str] = {}
        for file in files:
            match = _PICTURE.match(basename(file.uri))
            if match and basename(dirname(file.uri)) == wanted:
                by_number[int(match["number"])] = file.uri
        if by_number:
            return by_number
    return {}


def _from_files(pictures: dict[int, str], wanted: Sequence[int], name: str) -> Iterator[NDArray[np.uint8]]:
    from trackmill.pipeline.media.pictures import decode_picture

    for number in wanted:
        if number not in pictures:
            folder = redact(dirname(next(iter(pictures.values()))))
            raise BadTracks(f"{folder}: no picture of frame {number}, which has boxes in the ground truth of {name}")
        data = read_bytes(pictures[number])
        yield decode_picture(data, redact(pictures[number]), max_pixels=MAX_PIXELS, longest_side=_ANY_SIDE).image


def _from_video(url: str, wanted: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
    from trackmill.pipeline.media.videos import VideoReader

    if wanted and wanted[0] < 1:
        raise BadTracks(f"{redact(url)}: frames of a video count from 1, the ground truth has frame {wanted[0]}")
    with open_for_seeking(url) as handle:
        reader = VideoReader(handle, redact(url), max_pixels=MAX_PIXELS, longest_side=_ANY_SIDE)
        try:
            for frame in reader.read([number - 1 for number in wanted]):
                yield frame.image
        finally:
            reader.close()
