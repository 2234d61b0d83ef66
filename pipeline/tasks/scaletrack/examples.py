"""From a stored sample to a clip of ScaleTrack; samples that cannot give one are passed over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trackmill.pipeline.loader.clips import ClipExample, ClipSettings, ClipSources, make_clip
from trackmill.pipeline.loader.contract import StoredSample, UnfitSample

TRIES = 8
"""So many samples of the neighbourhood are tried where one gives no clip; nothing is decoded for those that do not."""


@dataclass(frozen=True, kw_only=True)
class MakeScaleTrackExample:
    """See `trackmill.pipeline.loader.contract.MakeExample`.

    A sample that gives no clip, such as a picture or a clip whose objects are too small in every draw, is passed over
    for one of its neighbourhood.
    """

    clips: ClipSettings
    sources: ClipSources

    def __call__(
        self, sample: StoredSample, rng: np.random.Generator, another: Callable[[], StoredSample]
    ) -> ClipExample:
        reasons = []
        for _ in range(TRIES):
            try:
                return make_clip(sample, rng, self.clips, self.sources)
            except UnfitSample as error:
                reasons.append(str(error))
            sample = another()
        raise UnfitSample(f"{reasons[0]}; nor do its neighbours give a clip")
