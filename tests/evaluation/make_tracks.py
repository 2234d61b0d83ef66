"""Tracking problems for tests and benchmarks, made by code: objects that walk, and a tracker that errs.

Objects cross, hide one another, leave and come back. The tracker misses, invents, doubles, jitters, takes one class for
another and switches identities. The same arguments give the same problem.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.evaluation.tracks import Tracks, Video, make_tracks
from trackmill.schemas.masks import format_counts, mask_runs

Grid = NDArray[np.float64]
"""(N, T, 4) float64 `x, y, width, height` of N objects in T frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How badly the tracker works.

    Args:
        miss: share of visible objects it does not see.
        miss_hidden: the same of objects that are mostly behind another.
        invented: tracks without an object, as a share of the number of objects.
        doubled: share of its boxes that come twice under two identities; every second copy is exact.
        jitter: standard deviation of a box's edges, as a share of its size.
        switch: chance in each frame that an object gets another identity; old ones come back.
        swap: pairs of objects that trade identities, as a share of the number of objects.
        wrong_label: share of boxes with another class.
    """

    miss: float = 0.08
    miss_hidden: float = 0.7
    invented: float = 0.3
    doubled: float = 0.04
    jitter: float = 0.05
    switch: float = 0.02
    swap: float = 0.2
    wrong_label: float = 0.05


NO_FAULTS = Faults(miss=0, miss_hidden=0, invented=0, doubled=0, jitter=0, switch=0, swap=0, wrong_label=0)


def make_video(
    name: str = "made",
    *,
    seed: int = 0,
    num_frames: int = 30,
    num_objects: int = 8,
    height: int = 480,
    width: int = 640,
    labels: tuple[int, ...] = (1,),
    faults: Faults | None = None,
    steps: float = 100,
) -> Video:
    """One problem.

    Args:
        name: of the video.
        seed: which problem.
        num_frames, num_objects: its size; objects are there for about two thirds of the time.
        height, width: of the frame, in pixels.
        labels: classes, drawn with equal chances for each object; repeat one to make it more frequent.
        faults: of the tracker.
        steps: coordinates and sizes are multiples of 1 / steps pixels. 100 are the two decimals of text files; less
            than 1 is so coarse that boxes coincide, sizes vanish and overlaps tie.
    """
    rng = np.random.default_rng(seed)
    faults = Faults() if faults is None else faults
    boxes = _walk(rng, num_objects, num_frames, height, width)
    present = _presence(rng, num_objects, num_frames)
    kind = rng.choice(np.array(labels), num_objects) if num_objects else np.zeros(0, np.int64)
    objects, frames = np.nonzero(present)
    gt = _rows(rng, frames, objects + 1, boxes[objects, frames], kind[objects], np.ones(len(frames)), steps)
    missed = rng.random(present.shape) < np.where(_hidden(boxes, present), faults.miss_hidden, faults.miss)
    objects, frames = np.nonzero(present & ~missed)
    seen = _jittered(rng, boxes[objects, frames], faults.jitter)
    ids = _identities(rng, num_objects, num_frames, faults)[objects, frames]
    doubled = np.flatnonzero(rng.random(len(seen)) < faults.doubled)
    copies = _jittered(rng, seen[doubled], faults.jitter / 4)
    copies[::2] = seen[doubled][::2]
    num_invented = int(np.ceil(faults.invented * num_objects))
    invented = _walk(rng, num_invented, num_frames, height, width)
    extra, times = np.nonzero(_presence(rng, num_invented, num_frames) & (rng.random((num_invented, num_frames)) < 0.6))
    all_frames = np.concatenate([frames, frames[doubled], times])
    all_ids = np.concatenate([ids, 3 * num_objects + objects[doubled], 4 * num_objects + extra])
    all_labels = np.concatenate([kind[objects], kind[objects[doubled]], rng.choice(np.array(labels), len(extra))])
    wrong = rng.random(len(all_labels)) < faults.wrong_label
    all_labels[wrong] = rng.choice(np.array(labels), int(wrong.sum()))
    # Trackers number their tracks with gaps and in no order that means anything.
    numbers = 1 + rng.permutation(6 * num_objects + 6)
    predictions = _rows(
        rng,
        all_frames,
        numbers[all_ids],
        np.concatenate([seen, copies, invented[extra, times]]),
        all_labels,
        np.round(rng.uniform(0.1, 1, len(all_frames)), 3),
        steps,
    )
    return Video(name=name, num_frames=num_frames, gt=gt, predictions=predictions)


def with_masks(video: Video, height: int, width: int) -> Video:
    """The same video with an ellipse in each box, cut at the borders of the frame, as run-length masks."""
    return replace(
        video,
        gt=_with_ellipses(video.gt, height, width),
        predictions=_with_ellipses(video.predictions, height, width),
    )


def ellipse(box: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """(H, W) mask of the ellipse inside a box (4,) `xyxy`."""
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    radius_x, radius_y = np.maximum((box[2:] - box[:2]) / 2, 1e-9)
    centre_x, centre_y = (box[2:] + box[:2]) / 2
    inside: NDArray[np.bool_] = ((columns - centre_x) / radius_x) ** 2 + ((rows - centre_y) / radius_y) ** 2 <= 1
    return inside


def coco_rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """COCO run lengths `{"size": [h, w], "counts": bytes}` of a mask, as `pycocotools` takes them."""
    return {"size": list(mask.shape), "counts": format_counts(mask_runs(mask)).encode()}


def _with_ellipses(tracks: Tracks, height: int, width: int) -> Tracks:
    masks = np.empty(len(tracks), object)
    masks[:] = [coco_rle(ellipse(box, height, width)) for box in tracks.boxes]
    return replace(tracks, masks=masks)


def _walk(rng: np.random.Generator, count: int, num_frames: int, height: int, width: int) -> Grid:
    """Straight walks with some noise, thrown back at the borders."""
    high = rng.uniform(0.1, 0.3, (count, 1)) * height
    size = np.stack([high * rng.uniform(0.4, 0.8, (count, 1)), high], axis=2)  # (N, 1, 2)
    size = size * (1 + 0.1 * np.sin(rng.uniform(0, 6, (count, 1, 1)) + np.arange(num_frames)[None, :, None] / 9))
    room = np.array([width, height], np.float64)
    speed = rng.normal(0, 0.008, (count, 1, 2)) + rng.normal(0, 0.003, (count, num_frames, 2))
    centre = (rng.random((count, 1, 2)) + np.cumsum(speed, axis=1)) * room
    centre = room - np.abs(centre % (2 * room) - room)
    return np.concatenate([centre - size / 2, size], axis=2)


def _presence(rng: np.random.Generator, count: int, num_frames: int) -> NDArray[np.bool_]:
    """(N, T): each object comes and goes once, every second one is away for a while in between."""
    time = np.arange(num_frames)
    come = rng.integers(0, num_frames // 3 + 1, (count, 1))
    go = num_frames - rng.integers(0, num_frames // 3 + 1, (count, 1))
    away = rng.integers(0, num_frames, (count, 1))
    length = np.where(rng.random((count, 1)) < 0.5, num_frames // 8, 0)
    present: NDArray[np.bool_] = (time >= come) & (time < go) & ~((time >= away) & (time < away + length))
    return present


def _hidden(boxes: Grid, present: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N, T): whether more than 60 % of an object lie behind a nearer one, whose lower edge is further down."""
    hidden = np.zeros(present.shape, bool)
    high, low = boxes[..., :2] + boxes[..., 2:], boxes[..., :2]
    for front in range(len(boxes)):
        sides = np.clip(np.minimum(high, high[front]) - np.maximum(low, low[front]), 0, None)
        covered = sides.prod(axis=2) > 0.6 * boxes[..., 2:].prod(axis=2)
        hidden |= covered & (high[front, :, 1] > high[..., 1]) & present[front]
    return hidden


def _identities(rng: np.random.Generator, count: int, num_frames: int, faults: Faults) -> NDArray[np.int64]:
    """(N, T) identity that the tracker gives each object; three an object, no two alike in a frame."""
    owner = np.repeat(np.arange(count)[:, None], num_frames, axis=1)
    if count > 1:
        for _ in range(int(faults.swap * count)):
            one, other = rng.choice(count, 2, replace=False)
            time = rng.integers(0, num_frames)
            owner[[one, other], time:] = owner[[other, one], time:]
    stretch = np.cumsum(rng.random((count, num_frames)) < faults.switch, axis=1) % 3
    return 3 * owner + np.take_along_axis(stretch, owner, axis=0)


def _jittered(rng: np.random.Generator, boxes: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    noise = share * rng.normal(0, 1, boxes.shape) * np.tile(boxes[:, 2:], 2)
    moved = boxes + noise
    moved[:, 2:] = np.maximum(moved[:, 2:], 0.2 * boxes[:, 2:])
    return moved


def _rows(
    rng: np.random.Generator,
    frames: NDArray[np.int64],
    ids: NDArray[np.int64],
    xywh: NDArray[np.float64],
    labels: NDArray[np.int64],
    scores: NDArray[np.float64],
    steps: float,
) -> Tracks:
    """Columns, in random order within each frame: the order decides ties."""
    order = rng.permutation(len(frames))
    xywh = np.round(xywh[order] * steps) / steps
    boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    return make_tracks(frames[order], ids[order], boxes, labels[order], scores[order])
