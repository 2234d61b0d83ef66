"""From a stored sample to a clip of ScaleTrack; samples that cannot give one are passed over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trackmill.pipeline.loader.clips import ClipExample, ClipSettings, ClipSources, UnfitClip, make_clip
from trackmill.pipeline.loader.contract import StoredSample
from trackmill.pipeline.shards.tar import BadShard

TRIES = 64
"""So many samples of the neighbourhood are tried where one gives no clip. Nothing is decoded for those that do not, and
in a data set of pictures and clips most may be pictures."""


@dataclass(frozen=True, kw_only=True)
class MakeScaleTrackExample:
    """See `trackmill.pipeline.loader.contract.MakeExample`."""

    clips: ClipSettings
    sources: ClipSources

    def __call__(
        self, sample: StoredSample, rng: np.random.Generator, another: Callable[[], StoredSample]
    ) -> ClipExample:
        first, reason = sample.key, ""
        for _ in range(TRIES):
            try:
                return make_clip(sample, rng, self.clips, self.sources)
            except UnfitClip as error:
                reason = reason or str(error)
            sample = another()
        raise BadShard(f"{first}: {reason}; nor do its neighbours give a clip")
