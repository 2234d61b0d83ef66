"""The contract of a video model: frames of one video in, the objects in them with identities out.

Two kinds of tracker keep it. Two-stage ones (`two_stage.TwoStage`) detect, embed and associate; end-to-end ones have
one network for everything. What reads frames and writes tracks (`run.track_video`) knows only this contract.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from trackmill.pipeline.tracking.timing import StageTimes
from trackmill.schemas.tracking import SourceFrame, TrackedObjects


@runtime_checkable
class VideoModel(Protocol):
    """Tracks one video at a time.

    Derive from it, or just have its members: code that may not import `trackmill.pipeline` keeps the contract as well.

    Whoever tracks calls, for each video:

    1. `names` and `category_ids`, when the files of results are opened;
    2. `reset()`, once, before the first frame;
    3. `track(frames, times)` with one batch of frames after another, in their order, until the video ends;
    4. `num_tracks`, at the end.

    The same frames after a `reset` give the same results, and it does not matter how they are cut into batches: a model
    that carries state from frame to frame takes the frames of a batch one by one. Neither frames nor results are kept
    by the caller beyond a batch; a model that keeps pictures makes memory grow with the video.
    """

    names: tuple[str, ...]
    """Name of each of the K labels that it can give; the same for all videos."""

    category_ids: tuple[int, ...]
    """For files: the id of each label's category in the data set that the model speaks of; K of them."""

    @abstractmethod
    def reset(self) -> None:
        """Forget everything: the next frame is the first of another video, and identities begin at 0 again."""

    @abstractmethod
    def track(self, frames: Sequence[SourceFrame], times: StageTimes) -> list[TrackedObjects]:
        """Track the next frames of the video.

        Args:
            frames: B >= 1 frames with (H, W, 3) uint8 RGB images. Sizes may differ from one to the next. `index` goes
                upwards and may leave out frames that could not be read.
            times: counts the seconds of each stage for the progress line: `with times.stage("decode boxes",
                len(frames)): ...`. Names are free; a model that counts none is counted as one stage, "track".

        Returns:
            One `TrackedObjects` a frame, in order: `TrackedObjects.of(detections, ids)`. Boxes are in pixels of the
            frame and may leave it; labels are places in `names`; an id is one object over the whole video, and stands
            at most once in a frame.

        Raises:
            ValueError: input that it cannot use. The run then stops and leaves no file behind.
        """

    @property
    @abstractmethod
    def num_tracks(self) -> int:
        """Identities handed out since the last `reset`."""
