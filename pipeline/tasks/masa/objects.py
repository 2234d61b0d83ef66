"""Which boxes of a stored frame MASA takes for objects."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from trackmill.pipeline.loader.contract import StoredSample
from trackmill.pipeline.loader.sidecar_rows import CHAINS, DETECTIONS, rows_with
from trackmill.pipeline.loader.views import View
from trackmill.schemas.boxes import Boxes, clip_boxes, empty_boxes
from trackmill.schemas.config import Settings

_Range = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class ObjectSettings(Settings):
    """Section `objects`: which boxes of a picture count as objects.

    Its proposals; where a picture has none, its annotated objects, without their identities. Or a detector's boxes out
    of a sidecar, and nothing else. With chains, the second view of some examples is another frame of the same clip.
    """

    sidecar: str = Field(
        "", description="Sidecar whose boxes stand in for the proposals, such as detections; empty: the proposals."
    )
    maximum: int = Field(0, ge=0, description="Proposals of a picture, drawn at random where there are more; 0: all.")
    min_score: float = Field(0.0, description="Proposals, or boxes of the sidecar, with a lower score are left out.")
    min_side: float = Field(1.0, ge=0, description="Boxes of which a side is below so many stored pixels are left out.")
    random: int = Field(
        0, ge=0, description="Boxes at random places beside them. Regions are instances too, whatever they show."
    )
    random_heights: _Range = Field((0.1, 0.5), description="Of these boxes, as parts of the picture's.")
    random_aspects: _Range = Field((0.4, 1.35), description="Their width over their height.")
    chains: str = Field(
        "",
        description="Sidecar of chains: what they link in two frames of a clip is one object; empty: both views are of "
        "one frame, always.",
    )
    chain_share: float = Field(
        0.5, ge=0, le=1, description="Probability that an example of a clip with chains is two frames of it."
    )
    chain_gap: int = Field(
        10, ge=1, description="Most stored frames between the two; chains that are wrong do more harm at a distance."
    )

    def sidecars(self) -> dict[str, tuple[str, ...]]:
        """Columns that are read, by the sidecar's name."""
        named = ((self.sidecar, DETECTIONS), (self.chains, CHAINS))
        return {name: columns for name, columns in named if name}


def draw_picture(sample: StoredSample, rng: np.random.Generator, settings: ObjectSettings) -> View:
    """A random frame of a sample with its objects, ids from 1; a frame that has objects, if there is one.

    Raises:
        BadShard: its pixels cannot be decoded.
    """
    chosen, boxes = 0, empty_boxes()
    for place, frame in enumerate(rng.permutation(sample.num_frames).tolist()):
        objects = objects_of(sample, frame, settings)
        if place == 0 or len(objects):
            chosen, boxes = frame, objects
        if len(objects) or settings.random:
            break
    image = sample.image(chosen)
    height, width = image.shape[:2]
    boxes = clip_boxes(boxes, height, width)
    boxes = boxes[large_enough(boxes, settings)]
    if settings.maximum and len(boxes) > settings.maximum:
        boxes = boxes[np.sort(rng.choice(len(boxes), settings.maximum, replace=False))]
    if settings.random:
        drawn = random_boxes(height, width, rng, settings)
        boxes = np.concatenate([boxes, drawn[large_enough(drawn, settings)]])
    return View(image=image, boxes=boxes, ids=np.arange(1, len(boxes) + 1, dtype=np.int64))


def random_boxes(height: int, width: int, rng: np.random.Generator, settings: ObjectSettings) -> Boxes:
    """`settings.random` boxes (N, 4) within a picture; wide ones are cut to its width."""
    count = settings.random
    heights = height * rng.uniform(*settings.random_heights, count).clip(max=1)
    widths = np.minimum(heights * rng.uniform(*settings.random_aspects, count), width)
    x = rng.random(count) * (width - widths)
    y = rng.random(count) * (height - heights)
    return np.stack([x, y, x + widths, y + heights], axis=1).astype(np.float32)


def objects_of(sample: StoredSample, frame: int, settings: ObjectSettings) -> Boxes:
    """The objects of a frame (N, 4), best first, but for random ones.

    Raises:
        SidecarError: `settings.sidecar` holds no boxes with scores, or does not exist.
        BadShard: the sample is quarantined in it.
    """
    if settings.sidecar:
        rows = rows_with(sample, settings.sidecar, frame, DETECTIONS)
        detected: Boxes = rows["box"][rows["score"] >= settings.min_score]
        return detected[large_enough(detected, settings)]
    boxes, scores = sample.proposals(frame)
    boxes = boxes[scores >= settings.min_score]
    if not len(boxes):
        annotated = sample.objects(frame)
        boxes = empty_boxes() if annotated is None else annotated[0]
    return boxes[large_enough(boxes, settings)]


def large_enough(boxes: Boxes, settings: ObjectSettings) -> NDArray[np.bool_]:
    """(N,) which boxes have sides of `settings.min_side` or more, and an area."""
    sides = boxes[:, 2:] - boxes[:, :2]
    # Also without an area at all, which no view can show.
    enough: NDArray[np.bool_] = np.logical_and.reduce((sides >= settings.min_side) & (sides > 0), axis=1)
    return enough
