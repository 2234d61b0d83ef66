"""What mining and tracking each get of a video: both read it, and neither may lose or renumber frames in silence."""

from __future__ import annotations

from pathlib import Path

from tests.make_numbered import number_of
from tests.sources.claiming import claim_all
from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.sources import open_source
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.tracking.frames import open_frames


def mined(path: Path, frames_per_clip: int = 8, label_fps: float = 1000) -> tuple[dict[int, int], list[str]]:
    """The number that each stored frame carries, by its index, and why clips were quarantined."""
    settings = ReadSettings(frames_per_clip=frames_per_clip, label_fps=label_fps)
    items, _, _ = claim_all([str(path)], "videos", settings)
    source = open_source("videos", settings)
    frames: dict[int, int] = {}
    errors = []
    for item in items:
        try:
            media = source.read(item)
        except BadItem as error:
            errors.append(str(error))
            continue
        frames |= {frame.index: number_of(frame.image) for frame in media.frames}
    return frames, errors


def tracked(path: Path) -> tuple[dict[int, int], list[str], int]:
    """The number that each frame carries, by its index; what could not be read; and how many frames were expected."""
    reader = open_frames(str(path))
    frames = {frame.number - 1: number_of(frame.image) for frame in reader}
    reader.close()
    return frames, reader.problems, reader.num_frames
