"""MASA's two rules word for word, in torch, one detection after another: slow, and meant to be read.

What `trackmill.models.association` does on arrays is compared with these. They take the same five arguments and
settings; a track is a dictionary, a detection a row, and each step of the description is one loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trackmill.models.association.masa_bdd import MasaBddSettings
from trackmill.models.association.masa_tao import MasaTaoSettings

NEITHER = -2
"""Stands in for an identity: a duplicate, which is neither track nor backdrop."""


@dataclass(kw_only=True)
class Found:
    """A frame's tracked detections, lists of equal length."""

    ids: list[int]
    indices: list[int]


class PlainRule:
    """What the two rules share: the memory of tracks, a dictionary from identity to what was last seen."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self.tracks: dict[int, dict[str, Any]] = {}
        self.num_tracks = 0

    def update(self, boxes: Any, scores: Any, labels: Any, embeddings: Any, frame_index: int) -> Found:
        """Associate one frame, as `Tracker.update`; arrays or tensors."""
        boxes, scores, labels, embeddings = (torch.as_tensor(one) for one in (boxes, scores, labels, embeddings))
        if len(boxes) == 0:
            return Found(ids=[], indices=[])
        order = scores.sort(descending=True, stable=True).indices
        order = order[self.survivors(boxes[order], scores[order], labels[order])]
        boxes, scores, labels, embeddings = boxes[order], scores[order], labels[order], embeddings[order]
        ids = torch.full((len(order),), -1)
        if len(order) and self.tracks:
            self.match(ids, boxes, scores, labels, embeddings, frame_index)
        for row in range(len(order)):
            if ids[row] == -1 and scores[row] > self.settings.init_score_thr:
                ids[row] = self.num_tracks
                self.num_tracks += 1
        self.remember(ids, boxes, labels, embeddings, frame_index)
        return Found(ids=ids[ids > -1].tolist(), indices=order[ids > -1].tolist())

    def remember(self, ids: Tensor, boxes: Tensor, labels: Tensor, embeddings: Tensor, frame_index: int) -> None:
        """Blend or begin each tracked detection, then drop what was not seen for long."""
        momentum = self.settings.memo_momentum
        for row in range(len(ids)):
            identity = int(ids[row])
            if identity < 0:
                continue
            embedding = embeddings[row]
            if identity in self.tracks:
                embedding = (1 - momentum) * self.tracks[identity]["embedding"] + momentum * embedding
            self.tracks[identity] = {
                "box": boxes[row],
                "label": labels[row],
                "embedding": embedding,
                "frame": frame_index,
            }
        for identity in list(self.tracks):
            if frame_index - self.tracks[identity]["frame"] >= self.settings.memo_tracklet_frames:
                del self.tracks[identity]

    def of_tracks(self, name: str) -> list[Any]:
        """One field of every track, in the order in which they began."""
        return [track[name] for track in self.tracks.values()]

    def maxima(self, similarity: Tensor) -> Iterator[tuple[int, Tensor, int]]:
        """Row, greatest similarity and its column, row by row; what is changed meanwhile counts for later rows."""
        for row in range(len(similarity)):
            confidence, column = torch.max(similarity[row], dim=0)
            if confidence > self.settings.match_score_thr:
                yield row, confidence, int(column)

    def survivors(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
        """Which detections are not dropped as duplicates; they come best first."""
        raise NotImplementedError

    def match(
        self, ids: Tensor, boxes: Tensor, scores: Tensor, labels: Tensor, embeddings: Tensor, frame_index: int
    ) -> None:
        """Write the identities of continued tracks into `ids`."""
        raise NotImplementedError


class PlainTao(PlainRule):
    """The rule that `MasaTaoTracker` describes."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(MasaTaoSettings(**settings))

    def survivors(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
        kept = labels >= 0
        low = torch.nonzero(scores < self.settings.distractor_score_thr).flatten()
        overlap = intersection_over_union(boxes[low], boxes)
        for position, row in enumerate(low):
            if (overlap[position, :row] > self.settings.distractor_nms_thr).any():
                kept[row] = False
        return kept

    def match(
        self, ids: Tensor, boxes: Tensor, scores: Tensor, labels: Tensor, embeddings: Tensor, frame_index: int
    ) -> None:
        memory = torch.stack(self.of_tracks("embedding"))
        similarity = (bi_softmax(embeddings, memory) + cosine(embeddings, memory)) / 2
        if self.settings.max_distance != -1:
            similarity = similarity * self.gate(boxes, frame_index)
        identities = list(self.tracks)
        for row, _, column in self.maxima(similarity):
            if scores[row] > self.settings.obj_score_thr:
                ids[row] = identities[column]
                take(similarity, row, column)

    def gate(self, boxes: Tensor, frame_index: int) -> Tensor:
        """1 within what a track may have moved, falling exponentially beyond."""
        seen = torch.stack(self.of_tracks("box"))
        centres, seen_centres = ((one[:, :2] + one[:, 2:]) / 2 for one in (boxes, seen))
        apart = (centres[:, None] - seen_centres[None, :]).norm(dim=2)
        passed = frame_index - torch.tensor(self.of_tracks("frame"))
        growth = torch.exp((passed / (self.settings.fps / 6)).clamp(max=60))  # 0 x infinity is not a reach
        reach = self.settings.max_distance * growth[None, :]
        beyond = torch.exp(-(apart - reach) / (100 / self.settings.fps))
        return torch.where(apart <= reach, torch.ones_like(apart), beyond)


class PlainBdd(PlainRule):
    """The rule that `MasaBddTracker` describes."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(MasaBddSettings(**settings))
        self.backdrops: list[dict[str, Tensor]] = []

    def survivors(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
        kept = torch.ones(len(boxes), dtype=torch.bool)
        overlap = intersection_over_union(boxes, boxes)
        for row in range(1, len(boxes)):
            low = scores[row] < self.settings.obj_score_thr
            allowed = self.settings.nms_backdrop_iou_thr if low else self.settings.nms_class_iou_thr
            if (overlap[row, :row] > allowed).any():
                kept[row] = False
        return kept

    def match(
        self, ids: Tensor, boxes: Tensor, scores: Tensor, labels: Tensor, embeddings: Tensor, frame_index: int
    ) -> None:
        identities = list(self.tracks)
        memory = torch.stack(self.of_tracks("embedding"))
        memory_labels = torch.stack(self.of_tracks("label"))
        for backdrop in self.backdrops:
            identities += [-1] * len(backdrop["labels"])
            memory = torch.cat([memory, backdrop["embeddings"]])
            memory_labels = torch.cat([memory_labels, backdrop["labels"]])
        if self.settings.match_metric == "bisoftmax":
            similarity = bi_softmax(embeddings, memory)
        elif self.settings.match_metric == "softmax":
            similarity = (embeddings @ memory.T).softmax(dim=1)
        else:
            similarity = cosine(embeddings, memory)
        if self.settings.with_cats:
            similarity = similarity * (labels[:, None] == memory_labels[None, :])
        for row, confidence, column in self.maxima(similarity):
            if identities[column] == -1:
                continue
            if scores[row] > self.settings.obj_score_thr:
                ids[row] = identities[column]
                take(similarity, row, column)
            elif confidence > self.settings.nms_conf_thr:
                ids[row] = NEITHER

    def remember(self, ids: Tensor, boxes: Tensor, labels: Tensor, embeddings: Tensor, frame_index: int) -> None:
        super().remember(ids, boxes, labels, embeddings, frame_index)
        overlap = intersection_over_union(boxes, boxes)
        left = [
            row
            for row in range(len(ids))
            if ids[row] == -1 and not (overlap[row, :row] > self.settings.nms_backdrop_iou_thr).any()
        ]
        self.backdrops.insert(0, {"embeddings": embeddings[left], "labels": labels[left]})
        if len(self.backdrops) > self.settings.memo_backdrop_frames:
            self.backdrops.pop()


def take(similarity: Tensor, row: int, column: int) -> None:
    """Nobody but `row` shall have `column`."""
    similarity[:row, column] = 0
    similarity[row + 1 :, column] = 0


def bi_softmax(embeddings: Tensor, memory: Tensor) -> Tensor:
    """Equation 2's s_1: (N, T)."""
    products = embeddings @ memory.T
    return (products.softmax(dim=1) + products.softmax(dim=0)) / 2


def cosine(embeddings: Tensor, memory: Tensor) -> Tensor:
    """Equation 2's s_2: (N, T)."""
    normalise = torch.nn.functional.normalize
    return normalise(embeddings, dim=1) @ normalise(memory, dim=1).T


def intersection_over_union(boxes: Tensor, others: Tensor) -> Tensor:
    """(M, N); a union of less than a millionth of a pixel counts as that."""
    low = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    sides = (high - low).clamp(min=0)
    common = sides[..., 0] * sides[..., 1]
    areas, other_areas = ((one[:, 2] - one[:, 0]) * (one[:, 3] - one[:, 1]) for one in (boxes, others))
    union = areas[:, None] + other_areas[None, :] - common
    return common / union.clamp(min=1e-6)
