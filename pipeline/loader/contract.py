"""What the loader hands to a task and what it wants back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class StoredSample(Protocol):
    """A picture, or a clip of F frames, as read from a shard; pixels are decoded when asked for."""

    @property
    def key(self) -> str:
        """Key of the sample, unique in the data set."""

    @property
    def origin(self) -> str:
        """File or video that the pixels came from; two clips of one video share it."""

    @property
    def num_frames(self) -> int:
        """F; 1 for a picture."""

    def image(self, frame: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB of one frame.

        Raises:
            BadShard: not a whole JPEG of the declared size.
        """

    def proposals(self, frame: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Class-agnostic proposals of a frame: boxes (N, 4) float32 xyxy in its pixels and scores (N,), best first."""

    def objects(self, frame: int) -> tuple[NDArray[np.float32], NDArray[np.int64]] | None:
        """Annotated objects of a frame: boxes (G, 4) and ids (G,), constant over a clip; None if never annotated."""

    def sidecar(self, name: str, frame: int) -> dict[str, NDArray[Any]]:
        """The rows of a frame in a sidecar, a table beside the shards such as `detections`.

        Args:
            name: of the sidecar.
            frame: position in the sample.

        Returns:
            Its own columns by name, (N,) each, (N, 4) float32 for boxes; N may be 0. Not to be written into.

        Raises:
            NoSidecar: it was not made, or not for this sample's unit; says which command makes it.
            OtherShards: it was made for other shards.
            BadShard: its part is damaged, or the sample is quarantined in it.
        """


class MakeExample(Protocol):
    """Turns a stored sample into what one place of a batch holds. Pickled into worker processes."""

    def __call__(self, sample: StoredSample, rng: np.random.Generator, another: Callable[[], StoredSample]) -> Any:
        """Make the example.

        Args:
            sample: what stands at this place of the order.
            rng: all randomness of this place; it follows from (seed, epoch, position) alone.
            another: gives a further sample of the same neighbourhood, drawn by `rng`, e.g. the partner of MixUp. Where
                there is no other, the same one.

        Raises:
            BadShard: the sample cannot be used; it is skipped, counted and named, and another takes its place.
        """


Collate = Callable[[Sequence[Any]], Any]
"""Joins the examples of a rank's part of a batch, in order. Called in the training process."""
