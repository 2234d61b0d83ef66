"""BDD100K ground truth and results in Scalabel's form, made by code: frames as they stand in the JSON files."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco

Frames = list[dict[str, Any]]

GT_CATEGORIES = (
    "pedestrian",
    "rider",
    "car",
    "truck",
    "bus",
    "motorcycle",
    "bicycle",
    "other vehicle",
    "trailer",
    "person",
)
HEIGHT, WIDTH = 120, 160


def make_scalabel(
    seed: int,
    *,
    num_videos: int = 2,
    num_frames: int = 12,
    num_objects: int = 14,
    grid: float = 0.0,
    masks: bool = False,
) -> tuple[Frames, Frames]:
    """Frames of the ground truth and of the results.

    Objects walk and hide one another; some are crowds, `ignored` or look-alikes. The tracker misses, invents, doubles,
    switches identities, takes one class for another, and calls some of its boxes crowds or look-alikes.

    Args:
        seed: the same seed gives the same frames.
        num_videos, num_frames, num_objects: sizes; the first video is the busiest.
        grid: round coordinates to multiples of this, which makes equal overlaps; 0 leaves them as they are.
        masks: write the boxes as run-length masks too, no two predictions of a frame on the same pixel.
    """
    random = np.random.default_rng(seed)
    gt, results = [], []
    for video in range(num_videos):
        objects = [_Walker(random, number, num_frames) for number in range(max(2, num_objects - 3 * video))]
        for step in range(num_frames):
            frame = {
                "name": f"v{video}-{step + 1:07d}.jpg",
                "videoName": f"v{video}",
                "frameIndex": step,
            }
            truths = [one.truth(random, step, grid) for one in objects if one.is_there(step)]
            guesses = [guess for one in objects for guess in one.guesses(random, step, grid)]
            random.shuffle(guesses)
            if masks:
                truths = _add_masks(truths, may_overlap=True)
                guesses = _add_masks(guesses, may_overlap=False)
            gt.append(frame | {"labels": truths or (None if step % 2 else [])})
            results.append(frame | {"labels": guesses})
    return gt, results


class _Walker:
    def __init__(self, random: np.random.Generator, number: int, num_frames: int) -> None:
        self.number = number
        self.category = GT_CATEGORIES[int(random.integers(len(GT_CATEGORIES)))]
        self.crowd = random.random() < 0.15
        self.size = random.uniform(12, 40, 2) * (1 + self.crowd)
        self.start = random.uniform(0, 80, 2)
        self.speed = random.normal(0, 2, 2)
        self.first, self.last = sorted(random.integers(0, num_frames + 1, 2).tolist())
        self.away = set(random.integers(0, num_frames, num_frames // 4).tolist())
        self.id = 100 + number
        self.guess = self.category if random.random() < 0.8 else "car"
        self.attributes = {"crowd": bool(self.crowd), "occluded": False}
        if random.random() < 0.08:
            self.attributes["ignored"] = True

    def is_there(self, step: int) -> bool:
        return self.first <= step < self.last and step not in self.away

    def box(self, step: int) -> np.ndarray:
        low = self.start + self.speed * step
        return np.concatenate([low, low + self.size])

    def truth(self, random: np.random.Generator, step: int, grid: float) -> dict[str, Any]:
        return {
            "id": f"o-{self.number}",
            "category": self.category,
            "attributes": dict(self.attributes),
            "box2d": _box2d(self.box(step), grid),
        }

    def guesses(self, random: np.random.Generator, step: int, grid: float) -> list[dict[str, Any]]:
        if random.random() < 0.07:
            self.id += 1000
        made = []
        if self.is_there(step) and random.random() < 0.85:
            made.append(self._guess(random, step, grid, self.id))
            if random.random() < 0.25:
                made.append(self._guess(random, step, grid, self.id + 20_000))
        elif random.random() < 0.2:
            made.append(self._guess(random, step, grid, self.id))
        return made

    def _guess(self, random: np.random.Generator, step: int, grid: float, identity: int) -> dict[str, Any]:
        category = self.guess if random.random() < 0.9 else "truck"
        label: dict[str, Any] = {
            "id": str(identity),
            "category": category,
            "score": float(random.random()),
            "box2d": _box2d(self.box(step) + random.normal(0, 3, 4), grid),
        }
        if random.random() < 0.05:
            label["attributes"] = {"crowd": True}
        return label


def _box2d(box: np.ndarray, grid: float) -> dict[str, float]:
    if grid:
        box = np.round(box / grid) * grid
    x1, x2 = sorted((float(box[0]), float(box[2])))
    y1, y2 = sorted((float(box[1]), float(box[3])))
    return {"y2": y2, "x1": x1, "x2": x2, "y1": y1}


def _add_masks(labels: list[dict[str, Any]], *, may_overlap: bool) -> list[dict[str, Any]]:
    """Labels with the pixels of their boxes; those without any pixel of their own are left out."""
    free = np.ones((HEIGHT, WIDTH), bool)
    kept = []
    for label in labels:
        box = {side: max(0, round(value)) for side, value in label["box2d"].items()}
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[box["y1"] : box["y2"] + 1, box["x1"] : box["x2"] + 1] = True
        if not may_overlap:
            mask &= free
            free &= ~mask
        if mask.any():
            label["rle"] = to_rle(mask)
            kept.append(label)
    return kept


def to_rle(mask: np.ndarray) -> dict[str, Any]:
    """Scalabel's `rle` of an (H, W) mask."""
    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}
