"""Makes an example for tracking by query out of a stored sample: a video gives frames, a picture shifted copies."""

from __future__ import annotations

import numpy as np

from trackmill.pipeline.loader.clips.query_example import QueryExample
from trackmill.pipeline.loader.clips.query_settings import QueryClipSettings, QuerySources
from trackmill.pipeline.loader.contract import StoredSample


def make_query_clip(
    sample: StoredSample, rng: np.random.Generator, settings: QueryClipSettings, sources: QuerySources, count: int
) -> QueryExample:
    """An example of T frames, all transformed alike; only these frames are decoded."""
    raise NotImplementedError
