"""The interfaces between the loader and a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from trackmill.schemas.errors import InputError


class StoredSample(Protocol):
    """A picture, or a clip of F frames, as read from a shard; pixels are decoded on access."""

    @property
    def key(self) -> str:
        """Key of the sample, unique in the data set."""

    @property
    def origin(self) -> str:
        """File or video that the pixels come from; two clips of one video share it."""

    @property
    def source(self) -> str:
        """Name of the source that mined it, such as `mot`."""

    @property
    def video(self) -> str:
        """Name of the video that a clip was cut from, unique among all videos; empty for a picture.

        Two clips of one video share it, and the ids of their annotated objects are those of the video. Ids of chains
        are those of the sample alone.
        """

    @property
    def num_frames(self) -> int:
        """F; 1 for a picture."""

    @property
    def height(self) -> int:
        """H, of every frame, in pixels."""

    @property
    def width(self) -> int:
        """W, of every frame, in pixels."""

    def image(self, frame: int, least: tuple[int, int] = (0, 0)) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB of one frame.

        Args:
            frame: index of the frame in the sample.
            least: where half of the height and width or less is at least this, the frame is decoded at such a scale,
                a number of eighths: (ceil(H * n / 8), ceil(W * n / 8), 3). (0, 0): at its own size.

        Raises:
            BadShard: not a whole JPEG of the declared size.
        """

    def frame_index(self, frame: int) -> int:
        """Number of a frame in its source video; 0 for a picture."""

    def frame_time(self, frame: int) -> float:
        """Seconds from the beginning of the source video to a frame; NaN where unknown, as for a picture."""

    def proposals(self, frame: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Class-agnostic proposals of a frame: boxes (N, 4) float32 xyxy in its pixels and scores (N,), best first."""

    def objects(self, frame: int) -> tuple[NDArray[np.float32], NDArray[np.int64]] | None:
        """Annotated objects of a frame: boxes (G, 4) and ids (G,), constant over a clip; None if never annotated."""

    def sidecar(self, name: str, frame: int) -> dict[str, NDArray[Any]]:
        """The rows of a frame in a sidecar, a table beside the shards such as `detections`.

        Args:
            name: name of the sidecar.
            frame: index of the frame in the sample.

        Returns:
            The sidecar's own columns by name, (N,) each, (N, 4) float32 for boxes; N may be 0. Do not write into them.

        Raises:
            NoSidecar: it does not exist, or not for this sample's unit; the message says which command makes it.
            OtherShards: it was made for other shards.
            BadShard: its part is damaged, or the sample is quarantined in it.
        """


class UnfitSample(InputError):
    """Nothing is wrong with a sample, but no example can be made of it; the text says why and what to set."""


class MakeExample(Protocol):
    """Turns a stored sample into one example of a batch. It is pickled into worker processes."""

    def __call__(self, sample: StoredSample, rng: np.random.Generator, another: Callable[[], StoredSample]) -> Any:
        """Make the example.

        Args:
            sample: the sample at this place of the order.
            rng: source of all randomness; depends only on seed, epoch, place and attempt.
            another: returns a further sample of the same window, drawn by `rng`, e.g. the partner of MixUp; the same
                sample where there is no other.

        Raises:
            BadShard: the sample cannot be used; the loader skips, counts and names it, and another takes its place.
            UnfitSample: likewise, but it does not count as bad.
        """


@runtime_checkable
class MakesByEpoch(Protocol):
    """A `MakeExample` whose examples depend on how far training is, such as clips that grow longer.

    Whatever has `at_epoch` is one: the loader asks it for the maker of each epoch, once in every process that makes
    examples. So the examples of an epoch are the same wherever and whenever they are made, also where a run goes on in
    its middle.
    """

    def at_epoch(self, epoch: int) -> MakeExample:
        """What makes the examples of an epoch, counted from 0: a pure function of the epoch."""


Collate = Callable[[Sequence[Any]], Any]
"""Joins the examples of a rank's part of a batch, in order. Called in the training process."""
