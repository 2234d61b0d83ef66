"""From a stored sample to MASA's two views: which frame, which of its objects, which second picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from trackmill.pipeline.loader.contract import StoredSample
from trackmill.pipeline.loader.views import View, ViewSettings
from trackmill.pipeline.shards.tar import BadShard
from trackmill.schemas.boxes import Boxes, clip_boxes, empty_boxes
from trackmill.schemas.config import Settings

_Range = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]

TRIES = 8
"""So many samples of the neighbourhood are tried where one has no object."""


class ObjectSettings(Settings):
    """Section `objects`: which boxes of a picture count as objects.

    Its proposals; where a picture has none, its annotated objects, without their identities.
    """

    maximum: int = Field(0, ge=0, description="Proposals of a picture, drawn at random where there are more; 0: all.")
    min_score: float = Field(0.0, description="Proposals below are left out.")
    min_side: float = Field(1.0, ge=0, description="Boxes of which a side is below so many stored pixels are left out.")
    random: int = Field(
        0, ge=0, description="Boxes at random places beside them. Regions are instances too, whatever they show."
    )
    random_heights: _Range = Field((0.1, 0.5), description="Of these boxes, as parts of the picture's.")
    random_aspects: _Range = Field((0.4, 1.35), description="Their width over their height.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """What one place of a batch holds.

    Args:
        key, reference: the two views.
        origins: file or video of the picture and of the one blended in, which may be the same.
    """

    key: View
    reference: View
    origins: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class MakeMasaExample:
    """See `trackmill.pipeline.loader.contract.MakeExample`.

    A sample in which nothing counts as an object is passed over for one of its neighbourhood.
    """

    objects: ObjectSettings
    views: ViewSettings

    def __call__(self, sample: StoredSample, rng: np.random.Generator, another: Callable[[], StoredSample]) -> Example:
        from trackmill.pipeline.loader.views.pair import make_pair

        first = sample
        for _ in range(TRIES):
            picture = draw_picture(sample, rng, self.objects)
            if len(picture.ids):
                break
            sample = another()
        else:
            raise BadShard(
                f"{first.key}: neither it nor its neighbours have an object; lower objects.min_score or "
                "objects.min_side, or set objects.random"
            )
        partner, origins = None, (sample.origin, sample.origin)
        if self.views.mixup or self.views.occluders:
            other = another()
            # A picture blended into itself would have every object twice, under different ids.
            if other.key != sample.key:
                partner = draw_picture(other, rng, self.objects)
                if self.views.mixup:
                    origins = (sample.origin, other.origin)
        key, reference = make_pair(picture.image, picture.boxes, picture.ids, rng, self.views, partner)
        return Example(key=key, reference=reference, origins=origins)


def draw_picture(sample: StoredSample, rng: np.random.Generator, settings: ObjectSettings) -> View:
    """A random frame of a sample with its objects, ids from 1; a frame that has objects, if there is one.

    Raises:
        BadShard: its pixels cannot be decoded.
    """
    chosen, boxes = 0, empty_boxes()
    for place, frame in enumerate(rng.permutation(sample.num_frames).tolist()):
        objects = _objects(sample, frame, settings)
        if place == 0 or len(objects):
            chosen, boxes = frame, objects
        if len(objects) or settings.random:
            break
    image = sample.image(chosen)
    height, width = image.shape[:2]
    boxes = clip_boxes(boxes, height, width)
    boxes = boxes[_large_enough(boxes, settings)]
    if settings.maximum and len(boxes) > settings.maximum:
        boxes = boxes[np.sort(rng.choice(len(boxes), settings.maximum, replace=False))]
    if settings.random:
        drawn = random_boxes(height, width, rng, settings)
        boxes = np.concatenate([boxes, drawn[_large_enough(drawn, settings)]])
    return View(image=image, boxes=boxes, ids=np.arange(1, len(boxes) + 1, dtype=np.int64))


def random_boxes(height: int, width: int, rng: np.random.Generator, settings: ObjectSettings) -> Boxes:
    """`settings.random` boxes (N, 4) within a picture; wide ones are cut to its width."""
    count = settings.random
    heights = height * rng.uniform(*settings.random_heights, count).clip(max=1)
    widths = np.minimum(heights * rng.uniform(*settings.random_aspects, count), width)
    x = rng.random(count) * (width - widths)
    y = rng.random(count) * (height - heights)
    return np.stack([x, y, x + widths, y + heights], axis=1).astype(np.float32)


def _objects(sample: StoredSample, frame: int, settings: ObjectSettings) -> Boxes:
    boxes, scores = sample.proposals(frame)
    boxes = boxes[scores >= settings.min_score]
    if not len(boxes):
        annotated = sample.objects(frame)
        boxes = empty_boxes() if annotated is None else annotated[0]
    return boxes[_large_enough(boxes, settings)]


def _large_enough(boxes: Boxes, settings: ObjectSettings) -> NDArray[np.bool_]:
    sides = boxes[:, 2:] - boxes[:, :2]
    # Also without an area at all, which no view can show.
    enough: NDArray[np.bool_] = np.logical_and.reduce((sides >= settings.min_side) & (sides > 0), axis=1)
    return enough
