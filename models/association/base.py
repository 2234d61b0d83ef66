"""The contract of a tracker: one frame's detections and their embeddings in, an identity for each detection out.

A tracker is sequential and deterministic. It knows nothing of images, files or networks, and works in NumPy; torch
embeddings are taken from whatever device they are on, in one transfer.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from trackmill.schemas.arrays import float_array
from trackmill.schemas.boxes import Boxes
from trackmill.schemas.config import Settings, build
from trackmill.schemas.detections import Detections

LARGEST_SQUARED_NORM = float(np.finfo(np.float32).max) / 4
"""Of an embedding: up to here no dot product, and no difference of two of them, leaves float32."""

LAST_FRAME = 2**62
"""Greatest frame index; differences of two stay in int64."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observations:
    """What is seen in a frame: N detections and their D-dimensional embeddings, in the order they were given.

    Args:
        boxes: (N, 4) float32, xyxy in pixels.
        scores: (N,) float32.
        labels: (N,) int64.
        embeddings: (N, D) float32, not necessarily of unit length.
        squared_norms: (N,) float32, of the embeddings.
    """

    boxes: Boxes
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    squared_norms: NDArray[np.float32]


class Tracker(ABC):
    """Gives identities to detections, frame after frame of one video."""

    name: ClassVar[str]
    """What a command line calls it."""

    Config: ClassVar[type[Settings]] = Settings

    def __init__(self, **settings: Any) -> None:
        """Take settings by name, those of `Config`.

        Raises:
            ValueError: a setting is unknown (names the nearest known one) or out of range.
        """
        self.settings: Any = build(self.Config, settings, type(self).__name__)
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next frame is the first of another video, and identities begin at 0 again."""
        self._last_frame: int | None = None
        self._dimension: int | None = None
        self._forget()

    def update(self, detections: Detections, embeddings: Any, frame_index: int) -> NDArray[np.int64]:
        """Associate the detections of the next frame.

        Args:
            detections: N of them. They were checked when they were made and are taken as they are.
            embeddings: (N, D) appearance embeddings as the model gives them, not normalised: an array, a torch tensor
                or nested sequences. D is the same in all frames. With N = 0 anything empty.
            frame_index: position of the frame in its video, greater than in the last call; frames may be left out.

        Returns:
            (N,) int64, the identity of each detection, counted from 0 since the last `reset`; -1 for a detection that
            belongs to no track. An identity occurs at most once.

        Raises:
            ValueError: embeddings have another shape or are not finite, or the frame is out of order; the text names
                the argument. Nothing of the tracker has changed then.
        """
        index = self._checked_index(frame_index)
        seen = observe(detections, embeddings)
        number, dimension = seen.embeddings.shape
        if not number:
            self._last_frame = index
            return np.zeros(0, np.int64)
        if dimension != (self._dimension or dimension):
            raise ValueError(f"embeddings have {dimension} dimensions, those of earlier frames had {self._dimension}")
        ids = self._associate(seen, index)
        self._last_frame, self._dimension = index, dimension
        return ids

    def wanted(self, detections: Detections) -> NDArray[np.int64] | None:
        """Which detections take part, if that can be told without embeddings; the others need none.

        Args:
            detections: N of them, as `update` would get them.

        Returns:
            (K,) indices; None: all may. `update` with these alone gives them the same identities, and the others have
            none.
        """
        return None

    @property
    @abstractmethod
    def num_tracks(self) -> int:
        """Identities handed out since the last `reset`."""

    @property
    @abstractmethod
    def alive_ids(self) -> NDArray[np.int64]:
        """Identities that the next frame can still continue, ascending."""

    @abstractmethod
    def _forget(self) -> None:
        """Drop all tracks."""

    @abstractmethod
    def _associate(self, seen: Observations, frame_index: int) -> NDArray[np.int64]:
        """The rule itself, on a frame with at least one detection: (N,) identities, -1 for none."""

    def _checked_index(self, frame_index: Any) -> int:
        try:
            index = operator.index(frame_index)
        except TypeError:
            raise ValueError(f"frame_index must be a whole number, not {frame_index!r}") from None
        if not 0 <= index <= LAST_FRAME:
            raise ValueError(f"frame_index must be within 0..{LAST_FRAME}, not {index}")
        if self._last_frame is not None and index <= self._last_frame:
            raise ValueError(
                f"frame_index {index} does not come after {self._last_frame}: frames go upwards within a video; "
                "call reset() before another one"
            )
        return index


def observe(detections: Detections, embeddings: Any) -> Observations:
    """Detections with their embeddings, of which only the embeddings are new and are checked here.

    Raises:
        ValueError: another shape than (N, D), or a row that is not finite or too long.
    """
    number = len(detections)
    array = float_array(embeddings, "embeddings")
    if array.ndim != 2:
        if number or array.size:
            raise ValueError(f"embeddings must have shape (N, D), not {array.shape}")
        array = array.reshape(0, 0)
    if len(array) != number:
        raise ValueError(f"embeddings are of {len(array)} detections, boxes of {number}")
    if number and not array.shape[1]:
        raise ValueError("embeddings must have at least one dimension, not shape (N, 0)")
    with np.errstate(over="ignore", invalid="ignore"):
        squared_norms = np.vecdot(array, array)
    # A comparison with NaN is false, so this line refuses NaN as well.
    if number and not squared_norms.max() <= LARGEST_SQUARED_NORM:
        row = int(np.argmin(squared_norms <= LARGEST_SQUARED_NORM))
        raise ValueError(
            f"embeddings: row {row} is not finite or longer than {LARGEST_SQUARED_NORM**0.5:.3g}; "
            "dot products would leave float32"
        )
    return Observations(
        boxes=detections.boxes,
        scores=detections.scores,
        labels=detections.labels,
        embeddings=array,
        squared_norms=squared_norms,
    )
