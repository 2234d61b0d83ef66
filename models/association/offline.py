"""A second look at finished tracks, when the whole video is known: cut where a link is doubtful, join what looks alike.

An online rule decides with the past alone. Afterwards more is known: two pieces of tracks that are seen in the same
frame are two objects, so their similarity shows how alike different objects of this video look. Pieces that are more
alike than most of those, do not overlap in time, and could have been walked from one to the other, become one track.
The rule is ours; it compares appearance only through cosines, so it fits any embedding.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from trackmill.schemas.config import Settings

_END = 4
"""Boxes at an end of a piece that its velocity is fitted to."""


class OfflineSettings(Settings):
    """How tracks are cut and joined. Lengths are in heights of the object, times in seconds of the video."""

    jump: float = Field(
        0.5, gt=0, description="A link is cut where its box moves farther than this in a frame, in heights of the box."
    )
    unseen_frames: int = Field(1, ge=0, description="A link is cut where more frames than these lie in between.")
    share: float = Field(
        0.9,
        ge=0,
        le=1,
        description="Two pieces are joined if they look more alike than this share of the pairs of pieces that are "
        "seen in the same frame, which are different objects. Higher joins less.",
    )
    similarity: float = Field(
        0.85, ge=-1, le=1, description="The least cosine where fewer than 20 such pairs are there to learn it from."
    )
    rejoin: float = Field(
        0.05, ge=0, le=2, description="Added to the cosine of two neighbouring pieces of one track: they may be whole."
    )
    max_gap_s: float = Field(10.0, ge=0, description="Pieces that are farther apart in time are not joined.")
    reach: float = Field(0.7, ge=0, description="How far the next piece may begin from where it is expected.")
    speed: float = Field(1.2, ge=0, description="How much farther for each second in between.")
    fill_s: float = Field(
        0.0, ge=0, description="Gaps of a track up to this long get boxes on the straight line between. 0: none."
    )


@dataclass(slots=True, eq=False)
class Piece:
    """A part of one online track, without a doubtful link in it.

    Args:
        number: its place among all pieces.
        track: the online identity; `place` counts its pieces.
        label: class of the object.
        frames, times, boxes: (N,), (N,), (N, 4) as lists that grow: frame index, seconds, `xyxy` pixels.
        total: (D,) sum of its embeddings, each of unit length.
    """

    number: int
    track: int
    place: int
    label: int
    total: NDArray[np.float64]
    frames: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    boxes: list[NDArray[np.float32]] = field(default_factory=list)


class Pieces:
    """Collects the tracks of a video frame by frame, cut into pieces: one vector is kept of a piece, not of a box.

    Args:
        settings: see `OfflineSettings`.
    """

    def __init__(self, settings: OfflineSettings) -> None:
        self._settings = settings
        self._open: dict[int, Piece] = {}
        self.all: list[Piece] = []

    def add(
        self,
        frame: int,
        time_s: float,
        ids: NDArray[np.int64],
        boxes: NDArray[np.float32],
        labels: NDArray[np.int64],
        embeddings: NDArray[np.float32],
    ) -> NDArray[np.int64]:
        """The objects of the next frame.

        Args:
            frame, time_s: place and time of the frame; both go upwards.
            ids, boxes, labels, embeddings: (M,) identities, (M, 4), (M,), (M, D) of its objects.

        Returns:
            (M,) places in `all`.
        """
        places = np.zeros(len(ids), np.int64)
        for row, track in enumerate(ids.tolist()):
            vector = embeddings[row].astype(np.float64)
            vector /= max(float(np.linalg.norm(vector)), 1e-12)
            piece = self._open.get(track)
            if piece is None or self._doubtful(piece, frame, boxes[row], int(labels[row])):
                place = 0 if piece is None else piece.place + 1
                piece = Piece(len(self.all), track, place, int(labels[row]), np.zeros_like(vector))
                self._open[track] = piece
                self.all.append(piece)
            piece.total += vector
            piece.frames.append(frame)
            piece.times.append(time_s)
            piece.boxes.append(boxes[row])
            places[row] = piece.number
        return places

    def _doubtful(self, piece: Piece, frame: int, box: NDArray[np.float32], label: int) -> bool:
        before, between = piece.boxes[-1], frame - piece.frames[-1]
        height = (before[3] - before[1] + box[3] - box[1]) / 2
        moved = float(np.hypot(*(_centre(box) - _centre(before))))
        return (
            label != piece.label
            or between > self._settings.unseen_frames + 1
            or moved > self._settings.jump * max(float(height), 1.0) * between
        )


def join_pieces(pieces: list[Piece], settings: OfflineSettings) -> NDArray[np.int64]:
    """Which pieces are one object.

    Joins are made one after the other, the most alike first; each joined group has the mean of its embeddings from then
    on, and spans the time of its members.

    Args:
        pieces: P of them.
        settings: see `OfflineSettings`.

    Returns:
        (P,) int64: the group of each, from 0 in the order of the groups' first frames.
    """
    groups = [_Group.of(piece) for piece in pieces]
    least = _least_similarity(groups, settings)
    alive = dict(enumerate(groups))
    heap = [
        (-score, first, second, 0, 0)
        for first, second in _neighbours(groups, settings)
        if (score := _score(groups[first], groups[second], settings)) > least
    ]
    heapq.heapify(heap)
    while heap:
        _, first, second, then_first, then_second = heapq.heappop(heap)
        if first not in alive or second not in alive:
            continue
        one, other = alive[first], alive[second]
        if (one.changes, other.changes) != (then_first, then_second):
            continue
        one.take(other)
        del alive[second]
        for number, group in alive.items():
            if number != first and (score := _score(one, group, settings)) > least:
                a, b = min(first, number), max(first, number)
                heapq.heappush(heap, (-score, a, b, alive[a].changes, alive[b].changes))
    found = np.zeros(len(pieces), np.int64)
    for identity, group in enumerate(sorted(alive.values(), key=lambda group: (group.begin, group.members[0]))):
        found[group.members] = identity
    return found


@dataclass(slots=True, eq=False)
class _Group:
    """Pieces that are one object."""

    members: list[int]
    label: int
    total: NDArray[np.float64]
    frames: set[int]
    begin: int
    head: _EndOf
    tail: _EndOf
    changes: int = 0

    @classmethod
    def of(cls, piece: Piece) -> _Group:
        times, boxes = np.array(piece.times), np.stack(piece.boxes).astype(np.float64)
        head = _EndOf.of(times[:_END], boxes[:_END], 0, piece)
        tail = _EndOf.of(times[-_END:], boxes[-_END:], -1, piece)
        return cls([piece.number], piece.label, piece.total.copy(), set(piece.frames), piece.frames[0], head, tail)

    def take(self, other: _Group) -> None:
        """Become one with another, which does not overlap in time."""
        self.members += other.members
        self.total += other.total
        self.frames |= other.frames
        self.begin = min(self.begin, other.begin)
        self.head = min(self.head, other.head, key=lambda end: end.time)
        self.tail = max(self.tail, other.tail, key=lambda end: end.time)
        self.changes += 1

    def cosine(self, other: _Group) -> float:
        """Of the mean embeddings."""
        lengths = np.linalg.norm(self.total) * np.linalg.norm(other.total)
        return float(self.total @ other.total / max(float(lengths), 1e-12))


@dataclass(frozen=True, slots=True, eq=False)
class _EndOf:
    """First or last moment of a group: where it is, how fast, and of which online track."""

    time: float
    centre: NDArray[np.float64]
    velocity: NDArray[np.float64]
    height: float
    track: int
    place: int

    @classmethod
    def of(cls, times: NDArray[np.float64], boxes: NDArray[np.float64], at: int, piece: Piece) -> _EndOf:
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        velocity = np.zeros(2)
        if len(times) > 2 and times[-1] > times[0]:
            velocity = np.polyfit(times - times[0], centres, 1)[0]
        height = max(float(np.mean(boxes[:, 3] - boxes[:, 1])), 1.0)
        return cls(float(times[at]), centres[at], velocity, height, piece.track, piece.place)


def _least_similarity(groups: list[_Group], settings: OfflineSettings) -> float:
    """How alike two pieces have to be, learnt from those that are certainly two objects."""
    sure = [group for group in groups if len(group.frames) >= 3]
    order = sorted(sure, key=lambda group: group.begin)
    cosines = []
    for place, group in enumerate(order):
        for other in order[place + 1 :]:
            if other.head.time > group.tail.time:
                break
            if not group.frames.isdisjoint(other.frames):
                cosines.append(group.cosine(other))
    return float(np.quantile(cosines, settings.share)) if len(cosines) >= 20 else settings.similarity


def _neighbours(groups: list[_Group], settings: OfflineSettings) -> Iterator[tuple[int, int]]:
    """Pairs that are near enough in time to be looked at: the lower number first."""
    order = sorted(range(len(groups)), key=lambda number: groups[number].head.time)
    begins = {(group.head.track, group.head.place): number for number, group in enumerate(groups)}
    for place, number in enumerate(order):
        tail = groups[number].tail
        limit = tail.time + settings.max_gap_s
        for other in order[place + 1 :]:
            if groups[other].head.time > limit:
                break
            yield min(number, other), max(number, other)
        # However long the gap: the online rule has said already that this may be the same one.
        next_of_track = begins.get((tail.track, tail.place + 1))
        if next_of_track is not None and groups[next_of_track].head.time > limit:
            yield min(number, next_of_track), max(number, next_of_track)


def _follows(earlier: _Group, later: _Group) -> bool:
    """Whether one begins where the other was cut off from it."""
    return (earlier.tail.track, earlier.tail.place + 1) == (later.head.track, later.head.place)


def _score(one: _Group, other: _Group, settings: OfflineSettings) -> float:
    """How well two groups go together; -inf where they cannot be one object."""
    if one.label != other.label or not one.frames.isdisjoint(other.frames):
        return float("-inf")
    earlier, later = (one, other) if one.head.time <= other.head.time else (other, one)
    if earlier.tail.time >= later.head.time:  # one lies inside a gap of the other: appearance alone decides
        return one.cosine(other)
    if _follows(earlier, later):
        return one.cosine(other) + settings.rejoin
    gap = later.head.time - earlier.tail.time
    if gap > settings.max_gap_s:
        return float("-inf")
    ahead = min(gap, 1.0)  # nobody walks straight on for longer
    begin, end = later.head, earlier.tail
    expected = (end.centre + ahead * end.velocity - begin.centre, begin.centre - ahead * begin.velocity - end.centre)
    missed = min(float(np.hypot(*step)) for step in (*expected, end.centre - begin.centre))
    if missed > (settings.reach + settings.speed * gap) * (begin.height + end.height) / 2:
        return float("-inf")
    return one.cosine(other)


def _centre(box: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((box[:2] + box[2:]) / 2, np.float32)
