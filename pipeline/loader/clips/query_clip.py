"""Makes an example for tracking by query out of a stored sample: a video gives frames, a picture shifted copies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.loader.clips.colour import draw_recolour
from trackmill.pipeline.loader.clips.framing import Framing, draw_framing
from trackmill.pipeline.loader.clips.identities import Identities, identities_of
from trackmill.pipeline.loader.clips.interval import choose_at_interval
from trackmill.pipeline.loader.clips.query_example import QueryExample
from trackmill.pipeline.loader.clips.query_settings import QueryClipSettings, QuerySources
from trackmill.pipeline.loader.clips.shifts import draw_shifts
from trackmill.pipeline.loader.contract import StoredSample, UnfitSample
from trackmill.schemas.boxes import clip_boxes
from trackmill.schemas.keys import NO_KEY, identity_key


def make_query_clip(
    sample: StoredSample, rng: np.random.Generator, settings: QueryClipSettings, sources: QuerySources, count: int
) -> QueryExample:
    """An example of T frames, all transformed alike; only these frames are decoded.

    All boxes of a frame are in it, however small, but for those of which nothing is in view. A frame may have none, and
    so may all: nobody there is something to learn as well, where the data set says so. Somebody whose identity is
    unknown gets one of their own in each frame.

    A sample with one frame to use, such as a picture, becomes T copies under a view that moves (`settings.shift`).

    Args:
        sample: a stored picture or clip.
        rng: source of all randomness.
        settings: see `QueryClipSettings`.
        sources: see `QuerySources`.
        count: T; a clip with fewer frames gives what it has.

    Raises:
        UnfitSample: nothing says who is in its frames.
        SidecarError, BadShard: see `identities_of`.
    """
    found = identities_of(sample, sources.clip_sources())
    usable = np.flatnonzero(found.told)
    if not len(usable):
        where = f"neither masklets nor the sidecar {sources.chains!r} say" if sources.chains else "no annotation says"
        raise UnfitSample(f"{sample.key}: {where} who is in its frames")
    height, width = sample.height, sample.width
    static = len(usable) == 1
    if static:
        view, corners = draw_shifts(height, width, count, settings.shift, rng)
        frames = np.repeat(usable, count)
    else:
        indices = np.array([sample.frame_index(frame) for frame in usable.tolist()], np.int64)
        frames = usable[choose_at_interval(indices, count, settings.interval, rng)]
        view, corners = (height, width), np.zeros((len(frames), 2), np.int64)
    drawn = draw_framing(*view, settings, rng)
    framings = [replace(drawn, corner=(drawn.corner[0] + x, drawn.corner[1] + y)) for x, y in corners.tolist()]
    people = _people(sample, found, sources, frames, static)
    boxes, ids, keys = [], [], []
    for frame, framing, (own_ids, own_keys) in zip(frames.tolist(), framings, people):
        placed, in_view = framing.boxes(found.boxes[frame])
        boxes.append(clip_boxes(placed[in_view], *framing.size) if settings.clip else placed[in_view])
        ids.append(own_ids[in_view])
        keys.append(own_keys[in_view])
    return QueryExample(
        images=_pixels(sample, frames, framings, rng, settings),
        boxes=tuple(boxes),
        ids=_renumbered(ids),
        keys=tuple(keys),
        static=static,
        origin=sample.origin,
        key=sample.key,
        frames=frames,
        indices=np.array([sample.frame_index(frame) for frame in frames.tolist()], np.int64),
    )


_FRAME = 1 << 32
"""More than the boxes of a frame."""

_Person = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Ids and keys (G,) of the boxes of a frame."""


def _people(
    sample: StoredSample, found: Identities, sources: QuerySources, frames: NDArray[np.int64], static: bool
) -> list[_Person]:
    """Who is in each of the frames: the ids are those of the sample, or new ones where it has none."""
    if not sample.video:  # a picture, in which any number may be anybody's
        count = len(found.ids[frames[0]])
        keys = np.full(count, NO_KEY, np.int64)
        if sources.static_identities:
            keys = np.array([identity_key(sample.source, sample.key, box) for box in range(count)], np.int64)
        return [(np.arange(count), keys)] * len(frames)
    keys_of = np.array([_key(sample, *owner) for owner in found.owners] + [NO_KEY], np.int64)  # the last: of -1
    nobody = len(found.owners)
    people = []
    for place, frame in enumerate(frames.tolist()):
        ids = found.ids[frame].copy()
        unknown = np.flatnonzero(ids < 0)
        # The same box in all copies of a frame is the same person, whoever that is; in other frames nobody knows.
        ids[unknown] = nobody + unknown + (0 if static else place * _FRAME)
        people.append((ids, keys_of[found.ids[frame]]))
    return people


def _key(sample: StoredSample, kind: str, number: int) -> int:
    """Masklets are numbered in the video, chains in the sample."""
    return identity_key(sample.source, sample.video if kind == "masklet" else sample.key, number)


def _renumbered(ids: list[NDArray[np.int64]]) -> tuple[NDArray[np.int64], ...]:
    """The same ids as numbers from 0 without gaps, in the order in which they first come."""
    everybody, first, places = np.unique(np.concatenate(ids), return_index=True, return_inverse=True)
    numbers = np.empty(len(everybody), np.int64)
    numbers[np.argsort(first)] = np.arange(len(everybody))
    return tuple(np.split(numbers[places.reshape(-1)], np.cumsum([len(each) for each in ids])[:-1]))


def _pixels(
    sample: StoredSample,
    frames: NDArray[np.int64],
    framings: list[Framing],
    rng: np.random.Generator,
    settings: QueryClipSettings,
) -> NDArray[np.uint8]:
    """(T, H, W, 3) uint8 RGB: each stored frame is decoded once, as small as will do, and scaled into its place."""
    recolour = draw_recolour(rng, settings)
    images = np.empty((len(frames), *framings[0].size, 3), np.uint8)
    decoded, last = None, -1
    for frame, framing, out in zip(frames.tolist(), framings, images):
        if decoded is None or frame != last:
            decoded, last = sample.image(frame, least=framing.enough(sample.height, sample.width)), frame
        framing.pixels(decoded, sample.height, out)
        if recolour is not None:
            out[:] = recolour(out)
    return images
