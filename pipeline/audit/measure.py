"""What is known of each negative of one sample: overlaps, whether the trainer would keep it, how long it persists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.audit.rows import FrameNegatives
from trackmill.pipeline.audit.settings import AuditSettings
from trackmill.pipeline.shards.visible import visible_boxes
from trackmill.pipeline.sidecars.producers.chains import link_boxes
from trackmill.schemas.boxes import Boxes, empty_boxes, iou_matrix, nms
from trackmill.schemas.negatives import inside_ignored
from trackmill.schemas.sample import SampleRecord

INSIDE = 0.8
"""Share of a negative's area inside an annotated object from which on it counts as a part of that object."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A negative that was found again in neighbouring stored frames.

    Args:
        frames: positions in the sample, one after the other.
        boxes: its box in each of them.
        iou: mean IoU of neighbours: 1 is a box that does not move.
    """

    frames: tuple[int, ...]
    boxes: tuple[tuple[float, float, float, float], ...]
    iou: float

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def travel(self) -> float:
        """How far its centre gets from where it began, in lengths of its box."""
        centres = np.array([((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in self.boxes])
        length = float(np.mean([((x1 - x0) * (y1 - y0)) ** 0.5 for x0, y0, x1, y1 in self.boxes]))
        return float(np.linalg.norm(centres - centres[0], axis=1).max()) / max(length, 1e-6)


@dataclass(frozen=True, slots=True)
class MeasuredFrame:
    """A frame's negatives and, for each of the N, what is known of it.

    Args:
        negatives: best score first.
        annotated: whether the data set says anything about this frame.
        object_iou: (N,) greatest IoU with an annotated object of the frame.
        close: (N,) whether that is enough for a loose box of the object itself, see `AuditSettings.near_iou`.
        inside: (N,) whether `INSIDE` of its area or more lies inside an annotated object: perhaps a part of it.
        lapsed: (N,) whether it overlaps an object of a neighbouring stored frame whose id is not in this one.
        proposal_iou: (N,) greatest IoU with a stored proposal.
        kept: (N,) what the trainer's NMS and limit leave.
        better: (N,) index of the negative that NMS keeps in its place; -1 where none does.
        chain: (N,) number of its chain in the sample; -1 where it is not kept. Only what is kept is linked.
    """

    negatives: FrameNegatives
    annotated: bool
    object_iou: NDArray[np.float32]
    close: NDArray[np.bool_]
    inside: NDArray[np.bool_]
    lapsed: NDArray[np.bool_]
    proposal_iou: NDArray[np.float32]
    kept: NDArray[np.bool_]
    better: NDArray[np.int64]
    chain: NDArray[np.int64]

    @property
    def near(self) -> NDArray[np.bool_]:
        """(N,) whether it may show an annotated object: loosely, in part, or one that this frame does not list."""
        return self.close | self.inside | self.lapsed


def measure(
    sample: SampleRecord, negatives: Sequence[FrameNegatives], settings: AuditSettings
) -> tuple[list[MeasuredFrame], list[Chain]]:
    """Measure the negatives of a sample.

    Args:
        sample: its record.
        negatives: of each frame.
        settings: see `AuditSettings`.

    Returns:
        The frames, and the chains that `MeasuredFrame.chain` counts into; a single negative is a chain of one frame.
    """
    frames = sample.frames
    negatives = [_at_least(own, settings.min_score) for own in negatives]
    survivors, betters = zip(*(_suppress(own, settings) for own in negatives))
    kept_boxes = [own.boxes[kept] for own, kept in zip(negatives, survivors)]
    numbers, ious = link_boxes(kept_boxes, settings.min_iou)
    measured = []
    for position, (record, own) in enumerate(zip(frames, negatives)):
        objects = visible_boxes(sample, position)
        kept = np.zeros(len(own), bool)
        chain = np.full(len(own), -1, np.int64)
        kept[survivors[position]] = True
        chain[survivors[position]] = numbers[position]
        object_iou = _best(iou_matrix(own.boxes, objects))
        measured.append(
            MeasuredFrame(
                negatives=own,
                annotated=sample.origin.annotated and record.objects is not None,
                object_iou=object_iou,
                close=object_iou >= settings.near_iou,
                inside=inside_ignored(own.boxes, objects, INSIDE),
                lapsed=_best(iou_matrix(own.boxes, _lapsed_objects(sample, position))) >= settings.min_iou,
                proposal_iou=_best(iou_matrix(own.boxes, _array(record.proposals.boxes))),
                kept=kept,
                better=betters[position],
                chain=chain,
            )
        )
    return measured, _chains(kept_boxes, numbers, ious)


def _at_least(own: FrameNegatives, min_score: float) -> FrameNegatives:
    count = int((own.scores >= min_score).sum())  # they are in order of their scores
    return FrameNegatives(own.boxes[:count], own.scores[:count], own.labels[:count])


def _suppress(own: FrameNegatives, settings: AuditSettings) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of what the trainer keeps, best first; and for each (N,) the one that NMS prefers to it, or -1."""
    winners = nms(own.boxes, own.scores, settings.nms_iou)
    better = np.full(len(own), -1, np.int64)
    if len(winners):
        overlaps = iou_matrix(own.boxes, own.boxes[winners]) > settings.nms_iou
        overlaps &= winners[None, :] < np.arange(len(own))[:, None]  # only a better one suppresses
        better = np.where(overlaps.any(axis=1), winners[overlaps.argmax(axis=1)], -1)
    return winners[: settings.max_boxes], better


def _lapsed_objects(sample: SampleRecord, position: int) -> Boxes:
    """Boxes of objects of the stored frames beside this one whose ids this one does not list."""
    here = sample.frames[position].objects
    ids = set(here.ids) if here else set()
    lapsed = [empty_boxes()]
    for beside in (position - 1, position + 1):
        if 0 <= beside < len(sample.frames) and (found := sample.frames[beside].objects) is not None:
            lapsed.append(visible_boxes(sample, beside)[[own not in ids for own in found.ids]])
    return np.concatenate(lapsed)


def _chains(boxes: list[Boxes], numbers: list[NDArray[np.int64]], ious: list[NDArray[np.float32]]) -> list[Chain]:
    members: dict[int, list[tuple[int, int]]] = {}
    for frame, own in enumerate(numbers):
        for row, number in enumerate(own.tolist()):
            members.setdefault(number, []).append((frame, row))
    chains = []
    for number in range(len(members)):  # they are numbered without a gap
        places = members[number]
        links = [float(ious[frame][row]) for frame, row in places[1:]]
        x0, y0, x1, y1 = zip(*(boxes[frame][row].tolist() for frame, row in places))
        mean = sum(links) / len(links) if links else 0.0
        chains.append(Chain(tuple(frame for frame, _ in places), tuple(zip(x0, y0, x1, y1)), mean))
    return chains


def _array(boxes: list[list[float]]) -> Boxes:
    return np.array(boxes, np.float32).reshape(-1, 4)


def _best(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, M) -> (N,) greatest of each row; 0 where M is 0."""
    best: NDArray[np.float32] = values.max(axis=1, initial=0.0)
    return best
