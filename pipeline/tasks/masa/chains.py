"""Two frames of a clip as the two views: what is the same object in both is known from chains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.loader.clips.identities import Identities, identities_of
from trackmill.pipeline.loader.clips.settings import ClipSources
from trackmill.pipeline.loader.contract import StoredSample
from trackmill.pipeline.loader.views import View
from trackmill.pipeline.tasks.masa.objects import ObjectSettings, large_enough, objects_of
from trackmill.schemas.boxes import clip_boxes
from trackmill.schemas.negatives import overlapping_objects

SAME_IOU = 0.5
"""A box that overlaps one of a chain so much or more is that box once more, and no object of its own."""


def draw_frames(sample: StoredSample, rng: np.random.Generator, settings: ObjectSettings) -> tuple[View, View] | None:
    """Two frames of a clip, at most `settings.chain_gap` apart, that have a chain in common; None if there are none.

    A chain has the same id, above 0, in both. Other boxes of the frames (`objects_of`, not random ones) have ids of
    their own: they have no partner in the other frame and are negatives there.

    Raises:
        SidecarError: the sidecar holds no chains.
        BadShard: pixels cannot be decoded, or the sample is quarantined in a sidecar.
    """
    found = _large(identities_of(sample, ClipSources(masklets=False, chains=settings.chains)), settings)
    frames = _two_frames(found, rng, settings.chain_gap)
    if frames is None:
        return None
    shared = np.intersect1d(found.ids[frames[0]], found.ids[frames[1]])
    first = 1 + max(int(ids.max(initial=0)) for ids in found.ids)
    views = []
    for frame in frames:
        chained, ids = found.boxes[frame], found.ids[frame] + 1
        others = objects_of(sample, frame, settings)
        others = others[~overlapping_objects(others, chained, SAME_IOU)]
        boxes = np.concatenate([chained, others])
        ids = np.concatenate([ids, first + 1 + np.arange(len(others))])
        first += len(others)
        kept = _at_most(settings.maximum, np.isin(ids, shared + 1), rng)
        image = sample.image(frame)
        height, width = image.shape[:2]
        views.append(View(image=image, boxes=clip_boxes(boxes[kept], height, width), ids=ids[kept]))
    return views[0], views[1]


def _large(found: Identities, settings: ObjectSettings) -> Identities:
    kept = [large_enough(boxes, settings) & (ids >= 0) for boxes, ids in zip(found.boxes, found.ids)]
    return replace(
        found,
        boxes=tuple(boxes[own] for boxes, own in zip(found.boxes, kept)),
        ids=tuple(ids[own] for ids, own in zip(found.ids, kept)),
    )


def _two_frames(found: Identities, rng: np.random.Generator, gap: int) -> tuple[int, int] | None:
    """Two different frames with an id in common, at most `gap` apart, in either order."""
    known = found.known().tolist()
    for frame in rng.permutation(known).tolist():
        near = [other for other in known if other != frame and abs(other - frame) <= gap]
        near = [other for other in near if np.isin(found.ids[frame], found.ids[other]).any()]
        if near:
            return frame, near[int(rng.integers(len(near)))]
    return None


def _at_most(maximum: int, shared: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    """Sorted places of at most `maximum` boxes (0: all), drawn at random, those that both frames have first."""
    if not maximum or len(shared) <= maximum:
        return np.arange(len(shared))
    order = rng.permutation(len(shared))
    return np.sort(order[np.argsort(~shared[order], kind="stable")][:maximum])
