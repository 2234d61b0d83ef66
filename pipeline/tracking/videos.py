"""Several videos in one call: which ones are meant, and what the results of each are called."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass

from trackmill.pipeline.sources import images, video_files
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.urls import basename, canonical, filesystem, has_magic, is_local
from trackmill.pipeline.tracking.frame_reader import name_of
from trackmill.pipeline.tracking.streams import is_stream, stream_name
from trackmill.schemas.errors import InputError


@dataclass(frozen=True, slots=True)
class Video:
    """One of the videos of a call.

    Args:
        url: as it was given, or as a glob found it.
        name: of its results; "": as whoever opens it says.
    """

    url: str
    name: str


def choose_videos(urls: Sequence[str], name: str | None = None) -> list[Video]:
    """The videos that are meant, each once, in the order in which they were named.

    Args:
        urls: videos, folders of pictures or sequences, and globs of them, which are sorted.
        name: of the results, for a single video.

    Raises:
        InputError: nothing is there, two have the same name, or `name` is given with several; says what to do.
    """
    found = [each for url in urls for each in _expanded(url)]
    if len(found) == 1:
        return [Video(found[0], name or "")]
    if name:
        raise InputError(f"--name {name}: is of one video, and {len(found)} are given, which have names of their own")
    videos = [Video(url, _name(url)) for url in found]
    first: dict[str, Video] = {}
    for video in videos:
        # Also where upper and lower case are one name.
        other = first.setdefault(video.name.lower(), video)
        if other is not video:
            raise InputError(
                f"{redact(other.url)} and {redact(video.url)}: the results of both would be called {video.name}; "
                "rename one, or track them in two runs with an --output each"
            )
    return videos


def _expanded(url: str) -> list[str]:
    if is_stream(url) or not has_magic(url) or (is_local(url) and os.path.exists(filesystem(url)[1])):
        return [url]
    matches = glob.glob(filesystem(url)[1]) if is_local(url) else [file.uri for file in list_files(url)]
    if not matches:
        raise InputError(f"--video {redact(url)}: nothing is called so")
    return sorted(matches)


def _name(url: str) -> str:
    """The name that the results get: of the file, or of the folder unless it holds nothing but one video."""
    if is_stream(url):
        return stream_name(url)
    root = canonical(url)
    named = root.lower().endswith(video_files.SUFFIXES)
    if named and not is_local(root):  # one request for each of a thousand videos is left out
        return name_of(root)
    files = [file.uri for file in list_files(root)]
    if files == [root]:
        return name_of(root)
    inside = [each.lower() for each in files if each.rpartition("/")[0] == root]
    alone = [each for each in files if each.rpartition("/")[0] == root and each.lower().endswith(video_files.SUFFIXES)]
    pictures = any(each.endswith(images.SUFFIXES) for each in inside) or len(files) > len(inside)
    return name_of(alone[0]) if len(alone) == 1 and not pictures else basename(root)
