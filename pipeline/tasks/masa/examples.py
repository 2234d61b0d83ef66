"""From a stored sample to MASA's two views: which frame, which of its objects, which second picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trackmill.pipeline.loader.contract import StoredSample, UnfitSample
from trackmill.pipeline.loader.views import View, ViewSettings
from trackmill.pipeline.shards.tar import BadShard
from trackmill.pipeline.tasks.masa.chains import draw_frames
from trackmill.pipeline.tasks.masa.objects import ObjectSettings, draw_picture

TRIES = 8
"""So many samples of the neighbourhood are tried where one has no object."""


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
            picture, other_frame = self._draw(sample, rng)
            if len(picture.ids):
                break
            sample = another()
        else:
            # Nothing is wrong with a picture in which a detector finds nobody; without any proposal something may be.
            kind = UnfitSample if self.objects.sidecar else BadShard
            raise kind(
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
        key, reference = make_pair(
            picture.image, picture.boxes, picture.ids, rng, self.views, partner, other_frame=other_frame
        )
        return Example(key=key, reference=reference, origins=origins)

    def _draw(self, sample: StoredSample, rng: np.random.Generator) -> tuple[View, View | None]:
        """A frame with its objects, and another frame of the same clip if the second view is of that."""
        if self.objects.chains and sample.num_frames > 1 and rng.random() < self.objects.chain_share:
            frames = draw_frames(sample, rng, self.objects)
            if frames is not None:
                return frames
        return draw_picture(sample, rng, self.objects), None
