"""Cutting a video into clips: which frames are kept, and which of them share a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from trackmill.pipeline.media.errors import BadItem
from trackmill.schemas.keys import sample_key
from trackmill.schemas.media import Frame, WorkItem


@dataclass(frozen=True, slots=True)
class Clip:
    """A run of kept frames: number `number`, beginning at the `start`-th kept frame, `length` of them."""

    number: int
    start: int
    length: int


def stride_for(fps: float, label_fps: float) -> int:
    """Source frames from one kept frame to the next, so that about `label_fps` frames a second are kept."""
    return max(1, round(fps / label_fps))


def num_kept(num_frames: int, stride: int) -> int:
    """How many of `num_frames` are kept when every `stride`-th is, beginning with the first."""
    return -(-num_frames // stride)


def cut_clips(kept: int, frames_per_clip: int) -> list[Clip]:
    """Cut `kept` frames into as few clips as possible, whose lengths differ by one at most, the longer first."""
    count = -(-kept // frames_per_clip)
    clips = []
    start = 0
    for number in range(count):
        length = kept // count + (1 if number < kept % count else 0)
        clips.append(Clip(number, start, length))
        start += length
    return clips


def clip_item(source: str, uri: str, name: str, clip: Clip, stride: int, details: dict[str, Any]) -> WorkItem:
    """The work item of one clip of the video at `uri`, which people call `name`."""
    source_id = f"{uri}#c{clip.number:03d}"
    return WorkItem(
        source=source,
        source_id=source_id,
        key=sample_key(source, f"{name}-c{clip.number:03d}", source_id),
        uri=uri,
        frames=clip.length,
        first_frame=clip.start * stride,
        stride=stride,
        details=orjson.dumps(details, option=orjson.OPT_SORT_KEYS).decode(),
    )


def source_frames(item: WorkItem) -> list[int]:
    """Source frame numbers of a clip."""
    return [item.first_frame + i * item.stride for i in range(item.frames)]


def check_one_size(frames: Sequence[Frame], where: str) -> None:
    """Raise `BadItem` unless there are frames and all are of one size: a clip is stored as one block."""
    if not frames:
        raise BadItem(f"{where}: holds no frame")
    first = frames[0].image.shape
    for frame in frames:
        if frame.image.shape != first:
            raise BadItem(
                f"{where}: frame {frame.index} is {frame.image.shape[0]} x {frame.image.shape[1]}, "
                f"the first of the clip is {first[0]} x {first[1]}"
            )
