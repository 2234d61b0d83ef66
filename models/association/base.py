"""The contract of a tracker: one frame's detections and their embeddings in, the same detections with identities out.

A tracker is sequential and deterministic. It knows nothing of images, files or networks, and works in NumPy; torch
tensors are taken from whatever device they are on, each in one transfer.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from trackmill.schemas.boxes import Boxes
from trackmill.schemas.config import Settings, build

LARGEST_COORDINATE = 1e9
"""In pixels; beyond it the area of a box says nothing in float32."""

LARGEST_SQUARED_NORM = float(np.finfo(np.float32).max) / 4
"""Of an embedding: up to here no dot product, and no difference of two of them, leaves float32."""

LAST_FRAME = 2**62
"""Greatest frame index; differences of two stay in int64."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observed:
    """What was seen in a frame, checked: N detections of D-dimensional embeddings, in the order they were given.

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tracked:
    """The M detections of a frame that belong to a track; an identity occurs at most once.

    Args:
        ids: (M,) int64 identities, counted from 0 since the last `reset`.
        boxes: (M, 4) float32, xyxy in pixels, as they were given.
        labels: (M,) int64, as given.
        scores: (M,) float32, as given.
        indices: (M,) int64, where each was among the detections that `update` was handed.
    """

    ids: NDArray[np.int64]
    boxes: Boxes
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, seen: Observed, indices: NDArray[np.int64], ids: NDArray[np.int64]) -> Tracked:
        """Give the detections `indices` (K,) the `ids` (K,); those with a negative one are left out."""
        if (ids < 0).any():
            indices, ids = indices[ids >= 0], ids[ids >= 0]
        return cls(
            ids=ids,
            boxes=seen.boxes[indices],
            labels=seen.labels[indices],
            scores=seen.scores[indices],
            indices=indices,
        )


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

    def update(self, boxes: Any, scores: Any, labels: Any, embeddings: Any, frame_index: int) -> Tracked:
        """Associate the detections of the next frame.

        Args:
            boxes: (N, 4) xyxy in pixels; an array, a torch tensor or nested sequences, like the following three.
            scores: (N,) confidences.
            labels: (N,) classes, whole numbers.
            embeddings: (N, D) appearance embeddings as the model gives them, not normalised. D is the same in all
                frames. With N = 0 any of the four may be empty in whatever shape.
            frame_index: position of the frame in its video, greater than in the last call; frames may be left out.

        Returns:
            The tracked detections, best score first.

        Raises:
            ValueError: an argument has another shape, is not finite, or is out of order; the text names it. Nothing
                of the tracker has changed then.
        """
        index = self._checked_index(frame_index)
        seen = observe(boxes, scores, labels, embeddings)
        number, dimension = seen.embeddings.shape
        if number and dimension != (self._dimension or dimension):
            raise ValueError(f"embeddings have {dimension} dimensions, those of earlier frames had {self._dimension}")
        tracked = self._associate(seen, index)
        self._last_frame = index
        if number:
            self._dimension = dimension
        return tracked

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
    def _associate(self, seen: Observed, frame_index: int) -> Tracked:
        """The rule itself, on checked input."""

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


def observe(boxes: Any, scores: Any, labels: Any, embeddings: Any) -> Observed:
    """Bring the four arguments of `Tracker.update` to arrays and check them.

    Raises:
        ValueError: names the argument and, where it is a matter of values, the row.
    """
    box_array = _floats(boxes, "boxes")
    number = len(box_array)
    if box_array.size == 0:
        box_array, number = box_array.reshape(0, 4), 0
    if box_array.ndim != 2 or box_array.shape[1] != 4:
        raise ValueError(f"boxes must have shape (N, 4), not {box_array.shape}")
    score_array = _column(_floats(scores, "scores"), "scores", number)
    label_array = _column(_whole_numbers(labels), "labels", number)
    embedding_array = _floats(embeddings, "embeddings")
    if embedding_array.ndim != 2:
        if number or embedding_array.size:
            raise ValueError(f"embeddings must have shape (N, D), not {embedding_array.shape}")
        embedding_array = embedding_array.reshape(0, 0)
    if len(embedding_array) != number:
        raise ValueError(f"embeddings are of {len(embedding_array)} detections, boxes of {number}")
    if number and not embedding_array.shape[1]:
        raise ValueError("embeddings must have at least one dimension, not shape (N, 0)")
    with np.errstate(over="ignore", invalid="ignore"):
        squared_norms = np.vecdot(embedding_array, embedding_array)
    if number:
        # A comparison with NaN is false, so each line refuses NaN as well.
        _refuse(box_array, np.abs(box_array).max() <= LARGEST_COORDINATE, "boxes", LARGEST_COORDINATE)
        _refuse(score_array, np.abs(score_array).max() < np.inf, "scores", np.finfo(np.float32).max)
        if not squared_norms.max() <= LARGEST_SQUARED_NORM:
            row = int(np.argmin(squared_norms <= LARGEST_SQUARED_NORM))
            raise ValueError(
                f"embeddings: row {row} is not finite or longer than {LARGEST_SQUARED_NORM**0.5:.3g}; "
                "dot products would leave float32"
            )
    return Observed(
        boxes=box_array,
        scores=score_array,
        labels=label_array,
        embeddings=embedding_array,
        squared_norms=squared_norms,
    )


def _to_array(value: Any, name: str) -> NDArray[Any]:
    if hasattr(value, "detach"):  # a torch tensor; torch itself is not needed here
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"{name}: rows of different lengths do not make an array") from None
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be numbers, not {array.dtype}")
    return array


def _floats(value: Any, name: str) -> NDArray[np.float32]:
    array = _to_array(value, name)
    if array.dtype != np.float32:
        with np.errstate(over="ignore"):  # what becomes infinite is refused by its value
            array = array.astype(np.float32)
    return np.ascontiguousarray(array)  # at least (1,); the same memory order gives the same rounding


def _whole_numbers(value: Any) -> NDArray[np.int64]:
    array = np.atleast_1d(_to_array(value, "labels"))
    if array.dtype.kind == "f":
        limit = float(2**53) if array.dtype == np.float64 else float(2**24)
        if array.size and not (np.abs(array) <= limit).all():
            raise ValueError(f"labels must be whole numbers; row {int(np.argmin(np.abs(array) <= limit))} is not")
        if (array != np.floor(array)).any():
            raise ValueError(f"labels must be whole numbers; row {int(np.argmax(array != np.floor(array)))} is not")
    return array.astype(np.int64, copy=False)


def _column(array: NDArray[Any], name: str, number: int) -> NDArray[Any]:
    if array.size == 0:
        array = array.reshape(0)
    if array.ndim != 1:
        raise ValueError(f"{name} must have shape (N,), not {array.shape}")
    if len(array) != number:
        raise ValueError(f"{name} are of {len(array)} detections, boxes of {number}")
    return array


def _refuse(array: NDArray[np.float32], fine: Any, name: str, limit: float) -> None:
    if not fine:
        bad = ~(np.abs(array) <= limit).reshape(len(array), -1).all(axis=1)
        row = int(np.argmax(bad))
        raise ValueError(f"{name}: row {row} is {array[row].tolist()}; all must be finite, at most {limit:.3g}")
