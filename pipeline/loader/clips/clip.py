"""Makes an example out of a stored clip: frames, boxes, one draw of the augmentation, pixels."""

from __future__ import annotations

import numpy as np

from trackmill.pipeline.loader.clips.example import ClipExample
from trackmill.pipeline.loader.clips.settings import ClipSettings, ClipSources
from trackmill.pipeline.loader.contract import StoredSample


def make_clip(
    sample: StoredSample, rng: np.random.Generator, settings: ClipSettings, sources: ClipSources
) -> ClipExample:
    """An example of T frames, all transformed alike; only these frames are decoded.

    Args:
        sample: a stored clip.
        rng: source of all randomness.
        settings: see `ClipSettings`.
        sources: see `ClipSources`.

    Raises:
        UnfitClip: fewer than two of its frames have boxes with identities, or no identity shows in two frames that
            follow each other; another sample may do.
        NoSidecar, OtherShards, BadShard: see `StoredSample`.
    """
    raise NotImplementedError
