"""IP-MOT as an end-to-end tracker: pictures of a video in, persons with identities out, no boxes asked for.

It keeps the contract of `trackmill.pipeline.tracking.base.VideoModel`, without importing it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from trackmill.models.ipmot.stream import Stream, StreamSettings
from trackmill.schemas.detections import make_detections
from trackmill.schemas.tracking import SourceFrame, TrackedObjects

if TYPE_CHECKING:
    from trackmill.models.ipmot.model import IpMot


class Times(Protocol):
    """What is used of `trackmill.pipeline.tracking.timing.StageTimes`."""

    def stage(self, name: str, num_frames: int = 0) -> AbstractContextManager[None]:
        """Count the time of a block."""


class IpMotTracker:
    """Tracks persons.

    Args:
        network: in evaluation mode. Neither TrackBook nor CLIP is needed, nor the head of instance embeddings.
        settings: thresholds and sizes; None: those of the network's variant.
    """

    names: tuple[str, ...] = ("person",)
    category_ids: tuple[int, ...] = (1,)

    def __init__(self, network: IpMot, settings: StreamSettings | None = None) -> None:
        self.network = network
        self.stream = Stream(network, settings)

    def reset(self) -> None:
        """See `VideoModel.reset`."""
        self.stream.reset()

    def track(self, frames: Sequence[SourceFrame], times: Times) -> list[TrackedObjects]:
        """See `VideoModel.track`; frames go through the network one by one, so batches change nothing.

        Stages are resize, encode (backbone and encoder), decode boxes, and update (the queries of the next frame).
        """
        stage = _counting(times)
        results = []
        for frame in frames:
            found = self.stream.step(frame.image, stage)
            results.append(TrackedObjects.of(make_detections(found.boxes, found.scores, names=self.names), found.ids))
        return results

    @property
    def num_tracks(self) -> int:
        """Identities that have been output since the last `reset`."""
        return self.stream.num_tracks


def _counting(times: Times) -> Callable[[str], AbstractContextManager[None]]:
    return lambda name: times.stage(name, 1)
