"""What association costs: MASA's rule on arrays beside the rule as plain loops, and beside ByteTrack of `trackers`.

Run it with `python -m tests.benchmarks.association`, when nothing else runs. All sides see the same video: 200 objects,
of which 100 are detected in each frame, so 200 tracks are alive throughout. Before anything is timed, identities of
both forms of the rule are compared frame by frame. Then the sides take turns, each in one thread, and the least
processor time of each counts: ratios are what matters, milliseconds belong to this machine. ByteTrack does another
thing (Kalman filters, IoU, an optimal assignment, no embeddings); it is here because it is what people run today.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trackmill.models.association import MasaBddTracker, MasaTaoTracker
from trackmill.schemas.detections import make_detections
from trackmill.schemas.tracking import TrackedObjects

NUM_OBJECTS, NUM_DETECTIONS, DIMENSION = 200, 100, 256
LOOP_AIM, TRACKERS_AIM, MILLISECONDS_AIM = 4, 8, 0.4

RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "TAO rule, TAO's settings": ("tao", {"init_score_thr": 1e-4, "obj_score_thr": 1e-4}),
    "TAO rule, distance gate": (
        "tao",
        {"init_score_thr": 0.1, "obj_score_thr": 0.01, "max_distance": 100, "fps": 30},
    ),
    "BDD rule, BDD's settings": ("bdd", {"init_score_thr": 0.5, "obj_score_thr": 0.3, "match_score_thr": 0.6}),
}

_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected:
    """A frame: boxes (N, 4), scores (N,), labels (N,), embeddings (N, D)."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    embeddings: np.ndarray


Step = Callable[[Any, int], Any]
"""Takes a frame in the side's own form and its index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One of those that take turns: a fresh tracker from `begin`, and the frames as it wants them."""

    begin: Callable[[], Step]
    frames: Sequence[Any]


def make_video(num_frames: int, seed: int = 0) -> list[Detected]:
    """Two frames with all objects, then `num_frames` with one half and the other half of them by turns.

    Boxes lie on a jittered grid and drift. A third of the scores is below 0.5. Objects come in look-alike groups of
    four, so that some detections find their best track taken.
    """
    random = np.random.default_rng(seed)
    columns = 20
    at = np.stack(np.divmod(np.arange(NUM_OBJECTS), columns)[::-1], axis=1) * (95, 105) + random.uniform(
        5, 30, (200, 2)
    )
    drift = random.normal(0, 1, (NUM_OBJECTS, 2))
    sides = random.uniform(40, 110, (NUM_OBJECTS, 2))
    groups = random.normal(0, 0.3, (NUM_OBJECTS // 4, DIMENSION)).repeat(4, axis=0)
    looks = groups + random.normal(0, 0.12, (NUM_OBJECTS, DIMENSION))
    labels = random.integers(0, 8, NUM_OBJECTS)
    frames = []
    for index in range(num_frames + 2):
        step = NUM_OBJECTS // NUM_DETECTIONS
        who = np.arange(NUM_OBJECTS) if index < 2 else np.arange(index % step, NUM_OBJECTS, step)
        who = random.permutation(who)
        low = at[who] + index * drift[who] + random.normal(0, 1, (len(who), 2))
        frames.append(
            Detected(
                boxes=np.concatenate([low, low + sides[who]], axis=1).astype(np.float32),
                scores=random.uniform(0.8 if index < 2 else 0.25, 1, len(who)).astype(np.float32),
                labels=labels[who],
                embeddings=(looks[who] + random.normal(0, 0.06, (len(who), DIMENSION))).astype(np.float32),
            )
        )
    return frames


def ours(kind: str, settings: dict[str, Any], video: Sequence[Detected]) -> Contestant:
    """The rule on arrays; like the others' frames, ours are in their own form before the clock runs."""

    def begin() -> Step:
        tracker = MasaTaoTracker(**settings) if kind == "tao" else MasaBddTracker(**settings)
        return lambda frame, index: tracker.update(*frame, index)

    return Contestant(begin=begin, frames=[(make_detections(f.boxes, f.scores, f.labels), f.embeddings) for f in video])


def plain(kind: str, settings: dict[str, Any], video: Sequence[Detected]) -> Contestant:
    """The rule as published: torch, one detection after another."""
    import torch

    from tests.association.plain_rules import PlainBdd, PlainTao

    def begin() -> Step:
        rule = PlainTao(**settings) if kind == "tao" else PlainBdd(**settings)
        return lambda frame, index: rule.update(*frame, index)

    fields = [(f.boxes, f.scores, f.labels, f.embeddings) for f in video]
    return Contestant(begin=begin, frames=[tuple(torch.from_numpy(field) for field in frame) for frame in fields])


def byte_track(video: Sequence[Detected]) -> Contestant:
    """ByteTrack of `trackers`, its defaults except that tracks count from their first detection on."""
    import supervision as sv
    from trackers import ByteTrackTracker

    def begin() -> Step:
        # Objects are seen in every other frame; a track that had to be seen twice in a row would never begin.
        tracker = ByteTrackTracker(minimum_consecutive_frames=1)
        return lambda frame, index: tracker.update(frame)

    return Contestant(
        begin=begin,
        frames=[sv.Detections(xyxy=f.boxes, confidence=f.scores, class_id=f.labels) for f in video],
    )


def agree(mine: Contestant, theirs: Contestant) -> str:
    """Refuse to time two forms of a rule that do not do the same; returns how much was tracked, in words."""
    update, loop = mine.begin(), theirs.begin()
    tracked = new = 0
    for index, (frame, other) in enumerate(zip(mine.frames, theirs.frames)):
        ids, expected = update(frame, index), loop(other, index)
        tracked_now = TrackedObjects.of(frame[0], ids)
        if tracked_now.ids.tolist() != expected.ids or tracked_now.indices.tolist() != expected.indices:
            raise SystemExit(f"identities differ in frame {index}; nothing was timed")
        if index >= 2:
            tracked += len(tracked_now)
            new += int((ids >= NUM_OBJECTS).sum())
    return f"{tracked / (len(mine.frames) - 2):.1f} tracked a frame, {new} of {tracked} by tracks begun later"


def race(sides: Sequence[Contestant], repeats: int) -> list[float]:
    """Best milliseconds a frame of each, in turns; the two frames with all objects do not count.

    Processor time: with one thread it is the time on the clock of a machine that has nothing else to do.
    """
    best = [float("inf")] * len(sides)
    for _ in range(repeats):
        for position, side in enumerate(sides):
            step = side.begin()
            step(side.frames[0], 0)
            step(side.frames[1], 1)
            start = time.process_time()
            for index, frame in enumerate(side.frames[2:], start=2):
                step(frame, index)
            took = time.process_time() - start
            best[position] = min(best[position], 1e3 * took / (len(side.frames) - 2))
    return best


def verdict(value: float, aim: float, *, at_most: bool = False) -> str:
    """Whether an aim was met."""
    met = value <= aim if at_most else value >= aim
    return f"(aim {'<=' if at_most else '>='} {aim:g}: {'met' if met else 'MISSED'})"


def main() -> None:
    """Compare, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=60, help="frames of a run")
    parser.add_argument("--repeats", type=int, default=7, help="runs of each side; the best counts")
    options = parser.parse_args()
    for package in ("torch", "trackers", "supervision"):
        if importlib.util.find_spec(package) is None:
            parser.error(f"the package {package!r} is needed for the other sides of this comparison")
    if any(os.environ.get(name) != number for name, number in _ONE_THREAD.items()):
        # These are read when the libraries are loaded, which is long past.
        os.execve(sys.executable, [sys.executable, "-m", __spec__.name, *sys.argv[1:]], os.environ | _ONE_THREAD)

    video = make_video(options.frames)
    theirs = byte_track(video)
    print(f"{NUM_DETECTIONS} detections x {NUM_OBJECTS} tracks, {DIMENSION} dimensions, {options.frames} frames, one")
    print(f"thread; best of {options.repeats}, sides in turns; milliseconds of processor time a frame\n")
    print(f"  {'':<26}{'arrays':>8}{'loops':>9}{'ByteTrack':>11}{'loops':>9}{'ByteTrack':>11}")
    notes = []
    for name, (kind, settings) in RULES.items():
        sides = [ours(kind, settings, video), plain(kind, settings, video), theirs]
        notes.append(f"{name}: {agree(*sides[:2])}")
        mine, loops, others = race(sides, options.repeats)
        print(f"  {name:<26}{mine:>8.3f}{loops:>9.2f}{others:>11.2f}{loops / mine:>8.1f}x{others / mine:>10.1f}x")
        print(
            f"  {'':<26}{verdict(mine, MILLISECONDS_AIM, at_most=True)}, loops {verdict(loops / mine, LOOP_AIM)}, "
            f"ByteTrack {verdict(others / mine, TRACKERS_AIM)}"
        )
    print("\n" + "\n".join(notes))


if __name__ == "__main__":
    main()
