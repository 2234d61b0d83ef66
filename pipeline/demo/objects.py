"""What moves through the camera's view: the truth of a sequence, and detections of it that are not perfect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trackmill.models.proposers.graph import GraphProposer, GraphSettings
from trackmill.pipeline.demo.camera import HEIGHT, WIDTH, Pose, seen_box
from trackmill.schemas.boxes import Boxes, clip_boxes, iou_matrix
from trackmill.schemas.masks import paste_mask
from trackmill.schemas.media import Frame

MAX_OBJECTS = 16
MIN_VISIBLE = 0.5
"""Share of an object's pixels that must be in view for it to count."""
MIN_SIDE = 12.0
_SIDES = (24, 130)
_MAX_COVERED = 0.25
JITTER, MISSED, FALSE_A_FRAME = 0.04, 0.1, 0.6
"""Of detections: standard deviation of each side, in parts of the box; share that is missing; wrong ones a frame."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Truth:
    """One object in one frame: box `xyxy` in pixels of the view, and the share of the object that is in view."""

    frame: int
    identity: int
    box: tuple[float, float, float, float]
    visible: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DemoDetections:
    """Of all frames.

    Args:
        frames: (N,) from 0.
        boxes: (N, 4) `xyxy` in pixels.
        scores: (N,) in 0..1.
    """

    frames: NDArray[np.int64]
    boxes: Boxes
    scores: NDArray[np.float32]


def find_objects(photograph: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
    """Regions of a photograph (H, W, 3) uint8 RGB that may pass for objects, the largest first.

    Graph proposals of a fitting size that hardly lie within each other: at most `MAX_OBJECTS`, each as (N, 2) middles
    of its pixels. They are parts rather than objects: a visor, a spoon, a wheel.
    """
    height, width = photograph.shape[:2]
    found = GraphProposer(GraphSettings(long_side=max(height, width))).propose([Frame(image=photograph)])[0]
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    fitting: NDArray[np.bool_] = np.logical_and.reduce((sides >= _SIDES[0]) & (sides <= _SIDES[1]), axis=1)
    areas = sides.prod(axis=1)
    chosen: list[int] = []
    for row in np.argsort(-areas, kind="stable").tolist():
        if fitting[row] and len(chosen) < MAX_OBJECTS and not _covered(found.boxes[row], found.boxes[chosen]):
            chosen.append(row)
    regions: list[NDArray[np.float64]] = []
    for row in chosen:
        mask = found.masks[row]
        assert mask is not None, "the proposer gives a mask with every box"
        y, x = np.nonzero(paste_mask(mask, height, width))
        regions.append(np.add(np.column_stack([x, y]), 0.5))
    return regions


def truth(objects: Sequence[NDArray[np.float64]], path: Sequence[Pose]) -> list[Truth]:
    """The objects in every frame in which at least half of one is in view and no side is tiny; identities from 1."""
    rows = []
    for frame, pose in enumerate(path):
        for identity, pixels in enumerate(objects, start=1):
            box, visible = seen_box(pixels, pose)
            if visible >= MIN_VISIBLE and min(box[2] - box[0], box[3] - box[1]) >= MIN_SIDE:
                rows.append(Truth(frame=frame, identity=identity, box=box, visible=visible))
    return rows


def detect(rows: Sequence[Truth], frames: int, rng: np.random.Generator) -> DemoDetections:
    """What a mediocre detector might make of the truth: shifted boxes, some missing, some where nothing is."""
    found, boxes, scores = [], [], []
    for frame in range(frames):
        true = np.array([row.box for row in rows if row.frame == frame], np.float32).reshape(-1, 4)
        sides = np.tile(true[:, 2:] - true[:, :2], 2)
        shifted = true + rng.normal(0, JITTER, true.shape).astype(np.float32) * sides
        kept = rng.random(len(true)) >= MISSED
        confidence = rng.uniform(0.55, 1.0, len(true))
        count = int(rng.poisson(FALSE_A_FRAME))
        size = rng.uniform(_SIDES[0], 90, (count, 2))
        corner = rng.random((count, 2)) * (np.array([WIDTH, HEIGHT]) - size)
        wrong = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
        wrong = wrong[(iou_matrix(wrong, true) < 0.3).all(axis=1)]
        both = clip_boxes(np.concatenate([shifted[kept], wrong]), HEIGHT, WIDTH)
        boxes.append(both)
        scores.append(np.concatenate([confidence[kept], rng.uniform(0.3, 0.7, len(wrong))]))
        found.append(np.full(len(both), frame, np.int64))
    return DemoDetections(
        frames=np.concatenate(found), boxes=np.concatenate(boxes), scores=np.concatenate(scores).astype(np.float32)
    )


def _covered(box: NDArray[np.float32], others: Boxes) -> bool:
    """Whether the smaller of the box and any other one lies within the larger by more than a quarter."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = (high - low).clip(min=0).prod(axis=1)
    smaller = np.minimum((others[:, 2:] - others[:, :2]).prod(axis=1), (box[2:] - box[:2]).prod())
    return bool((common > _MAX_COVERED * smaller).any())
