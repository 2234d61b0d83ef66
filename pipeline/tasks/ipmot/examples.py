"""From a stored sample to a clip for tracking by query; how long it is depends on the epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from trackmill.pipeline.loader.clips.query_clip import make_query_clip
from trackmill.pipeline.loader.clips.query_example import QueryExample
from trackmill.pipeline.loader.clips.query_settings import QueryClipSettings, QuerySources
from trackmill.pipeline.loader.contract import StoredSample


@dataclass(frozen=True, kw_only=True)
class MakeQueryExample:
    """See `trackmill.pipeline.loader.contract.MakeExample`.

    Args:
        clips, sources: sections of the recipe.
        epoch: whose clip length is used.
    """

    clips: QueryClipSettings
    sources: QuerySources
    epoch: int = 0

    def at_epoch(self, epoch: int) -> MakeQueryExample:
        """The same with the clip length of an epoch; the loader asks for it, see `MakeExample`."""
        return self if epoch == self.epoch else replace(self, epoch=epoch)

    def __call__(
        self, sample: StoredSample, rng: np.random.Generator, another: Callable[[], StoredSample]
    ) -> QueryExample:
        return make_query_clip(sample, rng, self.clips, self.sources, self.clips.frames_at(self.epoch))
