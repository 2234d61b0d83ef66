"""Makes an example out of a stored clip: frames, boxes, one draw of the augmentation, pixels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.loader.clips.boxes import at_most, objects_in_view, with_negatives
from trackmill.pipeline.loader.clips.colour import draw_recolour
from trackmill.pipeline.loader.clips.example import ClipExample, num_pairs
from trackmill.pipeline.loader.clips.frames import choose_frames
from trackmill.pipeline.loader.clips.identities import Identities, identities_of
from trackmill.pipeline.loader.clips.jitter import Jitter, draw_jitter
from trackmill.pipeline.loader.clips.settings import ClipSettings, ClipSources
from trackmill.pipeline.loader.contract import StoredSample, UnfitSample
from trackmill.schemas.boxes import Boxes, cut_at_frame

DRAWS = 10
"""So many draws of frames and augmentation are tried until an object is in view in two frames that follow each other:
the small scales of the jitter leave none of a clip with small objects."""


def make_clip(
    sample: StoredSample, rng: np.random.Generator, settings: ClipSettings, sources: ClipSources
) -> ClipExample:
    """An example of T frames, all transformed alike; only these frames are decoded.

    Objects that are too small or too little in view (`min_side`, `min_visible`), and those beyond `maximum`, are left
    out of their frame altogether: they are no anchors, no positives and, since all pseudo-negatives that overlap an
    object of the sample are dropped, no negatives either.

    Args:
        sample: a stored clip.
        rng: source of all randomness.
        settings: see `ClipSettings`.
        sources: see `ClipSources`.

    Raises:
        UnfitSample: no identity shows in two frames that follow each other; another sample may do.
        SidecarError, BadShard: see `identities_of`, `trackmill.pipeline.loader.negatives.negatives_of`.
    """
    if sample.num_frames < 2:
        raise UnfitSample(f"{sample.key}: is one picture, and a clip has two frames or more")
    found = identities_of(sample, sources)
    annotated = found.known()
    if len(annotated) < 2:
        raise UnfitSample(f"{sample.key}: {_nobody(sources)} in two of its frames")
    for _ in range(DRAWS):
        frames = choose_frames(annotated, settings.frames, settings.sampling, settings.span, rng)
        jitter = draw_jitter(sample.height, sample.width, _linked_centres(sample, found, frames), rng, settings)
        shown = [
            objects_in_view(found.boxes[frame], found.ids[frame], jitter, sample, settings) for frame in frames.tolist()
        ]
        if num_pairs([frame.ids for frame in shown]):
            break
    else:
        raise UnfitSample(
            f"{sample.key}: in {DRAWS} draws no object showed in two frames that follow each other; lower "
            "clips.min_side or clips.min_visible, or raise clips.resize"
        )
    shown = at_most(shown, sources.maximum, rng)
    shown = [
        with_negatives(each, frame, jitter, sample, settings, sources.negatives)
        for each, frame in zip(shown, frames.tolist())
    ]
    return ClipExample(
        images=_pixels(sample, frames, jitter, rng, settings),
        size=jitter.size,
        boxes=tuple(each.boxes for each in shown),
        ids=tuple(each.ids for each in shown),
        origin=sample.origin,
        key=sample.key,
        frames=frames,
        indices=np.array([sample.frame_index(frame) for frame in frames.tolist()], np.int64),
        times=np.array([sample.frame_time(frame) for frame in frames.tolist()], np.float64),
    )


def _pixels(
    sample: StoredSample,
    frames: NDArray[np.int64],
    jitter: Jitter,
    rng: np.random.Generator,
    settings: ClipSettings,
) -> NDArray[np.uint8]:
    """(T, S, S, 3) uint8 RGB: each frame is decoded, scaled and put into its place, one after the other."""
    from trackmill.pipeline.loader.clips.pixels import place_frame

    images = np.zeros((len(frames), settings.size, settings.size, 3), np.uint8)
    rows, columns = jitter.size
    recolour = draw_recolour(rng, settings)
    for number, out in zip(frames.tolist(), images):
        place_frame(sample.image(number, least=jitter.scaled), jitter, out)
        if recolour is not None:
            out[:rows, :columns] = recolour(np.ascontiguousarray(out[:rows, :columns]))
    return images


def _nobody(sources: ClipSources) -> str:
    if sources.chains:
        return f"neither masklets nor the sidecar {sources.chains!r} identify anybody"
    return "masklets identify nobody (objects.chains names a sidecar of chains, which trackmill mine-chains makes)"


def _linked_centres(sample: StoredSample, found: Identities, frames: NDArray[np.int64]) -> Boxes:
    """(K, 2) centres of the boxes, as far as they are in the frame, whose object is in the next frame, too."""
    centres = [np.zeros((0, 2), np.float32)]
    for here, after in pairwise(frames.tolist()):
        ids = found.ids[here]
        linked = found.boxes[here][(ids >= 0) & np.isin(ids, found.ids[after])]
        boxes = cut_at_frame(linked, sample.height, sample.width)
        centres.append(((boxes[:, :2] + boxes[:, 2:]) / 2).astype(np.float32))
    return np.concatenate(centres)
