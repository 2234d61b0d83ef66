"""Which negatives a person should look at: the best of each kind, from many samples and many classes.

The best-scored negatives of a data set are often one parked car in a hundred frames. So of a chain only its best frame
is a candidate, and a sample or a class gets more than its share only where the others leave room.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trackmill.pipeline.audit.measure import Chain, MeasuredFrame
from trackmill.pipeline.audit.settings import AuditSettings

SHARE_OF_A_SAMPLE, MOST_OF_A_SAMPLE = 2, 8
"""Candidates of one kind that a sample gives, and where there are too few samples for the sheet."""
_MOST_CLASSES = 1_000
"""Classes with a list of their own; later ones share one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A negative that may be an unlabelled object, or a part of a labelled one.

    Args:
        key: of the sample.
        frame: position in the sample.
        num_frames: of the sample.
        row: place among the frame's negatives, best first.
        box: `xyxy` in pixels of the stored frame.
        score, label: as the detector gave them.
        object_iou, proposal_iou: greatest IoU with an annotated object and with a stored proposal of the frame.
        annotated: whether the frame is.
        near, inside, lapsed: see `trackmill.pipeline.audit.measure.MeasuredFrame`.
        chain: where it was found again; one frame where it was not.
    """

    key: str
    frame: int
    num_frames: int
    row: int
    box: tuple[float, float, float, float]
    score: float
    label: str
    object_iou: float
    proposal_iou: float
    annotated: bool
    near: bool
    inside: bool
    lapsed: bool
    chain: Chain

    @property
    def persistence(self) -> float:
        """Share of the sample's frames in which it was found; 0 for one frame alone."""
        return len(self.chain) / self.num_frames if len(self.chain) > 1 else 0.0


def persistent_rank(candidate: Candidate, settings: AuditSettings) -> float | None:
    """How much a candidate looks like an unlabelled object of a clip: persistence times score, twice that if it moves.

    Windows, signs and trees persist as well as people do.
    """
    if len(candidate.chain) < settings.persistent_frames or candidate.near:
        return None
    moves = min(1.0, candidate.chain.travel / (2 * settings.moving_lengths))
    return candidate.persistence * candidate.score * (1 + moves)


def score_rank(candidate: Candidate, settings: AuditSettings) -> float | None:
    """Its score."""
    return candidate.score


def near_object_rank(candidate: Candidate, settings: AuditSettings) -> float | None:
    """Its score, if it may show an annotated object."""
    return candidate.score if candidate.near else None


KINDS = {
    "persistent": (persistent_rank, "Persist over frames", "found in several frames in a row, near no object"),
    "near": (near_object_rank, "Near annotated objects", "a part of one, a loose box, or one unlisted in this frame"),
    "best": (score_rank, "Best scores", "what the detector is surest of"),
}
"""By name: how its candidates are ranked, a heading, and what they have in common. In the order of the sheet."""


def candidates_of(key: str, frames: Sequence[MeasuredFrame], chains: Sequence[Chain]) -> list[Candidate]:
    """A candidate for each chain of a sample: the frame in which it has its best score."""
    best: dict[int, tuple[float, int, int]] = {}
    for position, frame in enumerate(frames):
        for row in np.flatnonzero(frame.kept).tolist():
            number, score = int(frame.chain[row]), float(frame.negatives.scores[row])
            if number not in best or score > best[number][0]:
                best[number] = (score, position, row)
    found = []
    for number, (score, position, row) in best.items():
        frame = frames[position]
        x0, y0, x1, y1 = frame.negatives.boxes[row].tolist()
        found.append(
            Candidate(
                key=key,
                frame=position,
                num_frames=len(frames),
                row=row,
                box=(x0, y0, x1, y1),
                score=score,
                label=frame.negatives.labels[row],
                object_iou=float(frame.object_iou[row]),
                proposal_iou=float(frame.proposal_iou[row]),
                annotated=frame.annotated,
                near=bool(frame.near[row]),
                inside=bool(frame.inside[row]),
                lapsed=bool(frame.lapsed[row]),
                chain=chains[number],
            )
        )
    return found


class Shortlist:
    """The best candidates of one kind, in memory that does not grow with the data set.

    Args:
        kind: a name in `KINDS`.
        length: how many to choose in the end.
        settings: see `AuditSettings`.
    """

    def __init__(self, kind: str, length: int, settings: AuditSettings) -> None:
        self.length = length
        self._rank, self._settings = KINDS[kind][0], settings
        # (rank, tie, candidate): ties go to the key that comes first, so that order of arrival decides nothing.
        self._by_class: dict[str, list[tuple[float, _Tie, Candidate]]] = {}

    def offer(self, candidates: Sequence[Candidate]) -> None:
        """All candidates of one sample; the best `MOST_OF_A_SAMPLE` of this kind go on."""
        ranked = [(rank, _Tie(c), c) for c in candidates if (rank := self._rank(c, self._settings)) is not None]
        for entry in heapq.nlargest(MOST_OF_A_SAMPLE, ranked, key=lambda entry: entry[:2]):
            label = entry[2].label
            if label not in self._by_class and len(self._by_class) >= _MOST_CLASSES:
                label = ""
            own = self._by_class.setdefault(label, [])
            if len(own) < self.length:
                heapq.heappush(own, entry)
            else:
                heapq.heappushpop(own, entry)

    def chosen(self, taken: frozenset[tuple[str, int, int]] = frozenset()) -> list[Candidate]:
        """At most `length` candidates, best first.

        Args:
            taken: (key, frame, row) of those that stand elsewhere already.
        """
        entries = [entry for own in self._by_class.values() for entry in own]
        entries = [entry for entry in sorted(entries, reverse=True) if place_of(entry[2]) not in taken]
        share = max(2, -(-self.length // 5))
        classes: Counter[str] = Counter()
        samples: Counter[str] = Counter()
        first: list[Candidate] = []
        rest: list[Candidate] = []
        for _, _, candidate in entries:
            if classes[candidate.label] < share and samples[candidate.key] < SHARE_OF_A_SAMPLE:
                classes[candidate.label] += 1
                samples[candidate.key] += 1
                first.append(candidate)
            else:
                rest.append(candidate)
        chosen = set(map(place_of, [*first, *rest][: self.length]))
        return [candidate for _, _, candidate in entries if place_of(candidate) in chosen]


def place_of(candidate: Candidate) -> tuple[str, int, int]:
    """Which negative it is."""
    return candidate.key, candidate.frame, candidate.row


@dataclass(frozen=True, slots=True)
class _Tie:
    """Orders candidates of one rank: the one that comes first in the data set is the greater."""

    candidate: Candidate

    def __lt__(self, other: _Tie) -> bool:
        return place_of(self.candidate) > place_of(other.candidate)
