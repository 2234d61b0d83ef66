"""What a tracker remembers of its tracks, in arrays that grow by doubling: one row per track, oldest identity first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackmill.models.association.base import Observations, Tracker
from trackmill.models.association.similarity import inverse_norms
from trackmill.schemas.boxes import Boxes

_FIRST_CAPACITY = 64


class TrackMemory:
    """Live tracks and the count of identities handed out."""

    def __init__(self) -> None:
        self.num_tracks = 0
        self._size = 0
        self._arrays: dict[str, NDArray[Any]] = {
            "ids": np.zeros(0, np.int64),
            "embeddings": np.zeros((0, 0), np.float32),
            "inverse_norms": np.zeros(0, np.float32),
            "boxes": np.zeros((0, 4), np.float32),
            "labels": np.zeros(0, np.int64),
            "last_frames": np.zeros(0, np.int64),
        }

    def __len__(self) -> int:
        return self._size

    @property
    def ids(self) -> NDArray[np.int64]:
        """(T,) identities, ascending."""
        return self._arrays["ids"][: self._size]

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """(T, D) running means."""
        return self._arrays["embeddings"][: self._size]

    @property
    def inverse_norms(self) -> NDArray[np.float32]:
        """(T,) one over the lengths of the embeddings."""
        return self._arrays["inverse_norms"][: self._size]

    @property
    def boxes(self) -> Boxes:
        """(T, 4) where each track was last seen."""
        return self._arrays["boxes"][: self._size]

    @property
    def labels(self) -> NDArray[np.int64]:
        """(T,) as last seen."""
        return self._arrays["labels"][: self._size]

    @property
    def last_frames(self) -> NDArray[np.int64]:
        """(T,) frame in which each was last seen."""
        return self._arrays["last_frames"][: self._size]

    def record(
        self,
        seen: Observations,
        order: NDArray[np.int64],
        chosen: NDArray[np.int64],
        may_start: NDArray[np.bool_],
        frame_index: int,
        momentum: float,
    ) -> NDArray[np.int64]:
        """Continue tracks with the detections that chose one, begin tracks with others.

        Args:
            seen: the frame's detections.
            order: (K,) which of them are meant, in the order in which identities are handed out.
            chosen: (K,) row of the track that each continues, no row twice; -1 for none.
            may_start: (K,) whether it begins a track where it continues none.
            frame_index: where they were seen.
            momentum: weight of the new embedding in that of a continued track; the old one has 1 - `momentum`.

        Returns:
            (K,) identities, -1 where there is none.
        """
        ids = np.full(len(order), -1, np.int64)
        continued = np.flatnonzero(chosen >= 0)
        if len(continued):
            rows = chosen[continued]
            ids[continued] = self.ids[rows]
            self._refresh(rows, seen, order[continued], frame_index, momentum)
        new = np.flatnonzero((chosen < 0) & may_start)
        if len(new):
            ids[new] = self._start(seen, order[new], frame_index)
        return ids

    def forget(self, frame_index: int, frames: int) -> None:
        """Delete tracks that were last seen `frames` or more frames before `frame_index`."""
        alive = frame_index - self.last_frames < frames
        left = int(np.count_nonzero(alive))
        if left < self._size:
            for array in self._arrays.values():
                array[:left] = array[: self._size][alive]
            self._size = left

    def _refresh(
        self, rows: NDArray[np.int64], seen: Observations, picked: NDArray[np.int64], frame_index: int, momentum: float
    ) -> None:
        # Products and sum are rounded one by one in float32, as in the released code.
        blended = self._arrays["embeddings"].take(rows, axis=0)
        blended *= 1 - momentum
        fresh = seen.embeddings.take(picked, axis=0)
        fresh *= momentum
        blended += fresh
        self._arrays["embeddings"][rows] = blended
        self._arrays["inverse_norms"][rows] = inverse_norms(np.vecdot(blended, blended))
        self._arrays["boxes"][rows] = seen.boxes[picked]
        self._arrays["labels"][rows] = seen.labels[picked]
        self._arrays["last_frames"][rows] = frame_index

    def _start(self, seen: Observations, picked: NDArray[np.int64], frame_index: int) -> NDArray[np.int64]:
        number = len(picked)
        ids = np.arange(self.num_tracks, self.num_tracks + number)
        rows = slice(self._size, self._size + number)
        self._make_room(self._size + number, seen.embeddings.shape[1])
        self._arrays["ids"][rows] = ids
        self._arrays["embeddings"][rows] = seen.embeddings[picked]
        self._arrays["inverse_norms"][rows] = inverse_norms(seen.squared_norms[picked])
        self._arrays["boxes"][rows] = seen.boxes[picked]
        self._arrays["labels"][rows] = seen.labels[picked]
        self._arrays["last_frames"][rows] = frame_index
        self._size += number
        self.num_tracks += number
        return ids

    def _make_room(self, size: int, dimension: int) -> None:
        capacity = len(self._arrays["ids"])
        if size <= capacity:
            return
        if not capacity:
            self._arrays["embeddings"] = np.zeros((0, dimension), np.float32)
        capacity = max(_FIRST_CAPACITY, size, 2 * capacity)
        for name, array in self._arrays.items():
            grown = np.zeros((capacity, *array.shape[1:]), array.dtype)
            grown[: self._size] = array[: self._size]
            self._arrays[name] = grown


class MemoryTracker(Tracker):
    """A rule whose tracks are rows of a `TrackMemory`."""

    def _forget(self) -> None:
        self._memory = TrackMemory()

    @property
    def num_tracks(self) -> int:
        return self._memory.num_tracks

    @property
    def alive_ids(self) -> NDArray[np.int64]:
        return self._memory.ids.copy()
