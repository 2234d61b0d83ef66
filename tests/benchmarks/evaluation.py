"""What evaluation costs beside the official tools: ratios of time, both sides in one run, and peak memory.

Run it with `python -m tests.benchmarks.evaluation` (`--quick` for a minute's look), when nothing else runs. Before
anything is timed, the numbers of both sides are compared. Then the sides take turns, and the best of each counts:
ratios are what matters, milliseconds belong to this machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from tests.evaluation.make_track_files import MotFiles, mot_videos, write_mot
from tests.evaluation.make_tracks import Faults, make_video
from trackmill.pipeline.evaluation.tracks import Video

# Either side is imported inside the function that runs it: the peak of one must not hold the packages of the other.

MOT_CASES = ((600, 12), (1200, 40), (600, 120))
"""Frames in all, over two sequences, and objects in each."""
NUM_CLASSES = 36
TETA_CASE = (24, 40)
"""Videos and frames of each."""
MANY_SEQUENCES = (48, 600, 80)
"""Sequences, frames and objects of each, for evaluation in processes."""
MOT_AIM, TETA_AIM = 4, 8

Scores = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Best of several runs, in seconds: processor time and time on the clock."""

    cpu: float
    wall: float


def race(ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int) -> tuple[Times, Times]:
    """Run both in turns, after one run each that does not count."""
    sides: tuple[list[Times], list[Times]] = ([], [])
    ours(), theirs()
    for _ in range(repeats):
        for action, measured in zip((ours, theirs), sides):
            wall, cpu = time.perf_counter(), time.process_time()
            action()
            measured.append(Times(cpu=time.process_time() - cpu, wall=time.perf_counter() - wall))
    best = [Times(cpu=min(t.cpu for t in side), wall=min(t.wall for t in side)) for side in sides]
    return best[0], best[1]


def make_mot(root: Path, num_frames: int, num_objects: int) -> MotFiles:
    """MOT17-like text files: distractors of all classes, 1920 x 1080 pixels."""
    size = {"num_frames": num_frames // 2, "num_objects": num_objects, "height": 1080, "width": 1920}
    return write_mot(root, mot_videos("mot17", count=2, **size), "mot17")


def our_mot(root: Path) -> Scores:
    """Totals by `jobs/evaluate.py`'s way, percent and counts."""
    from trackmill.pipeline.evaluation.benchmarks.mot import evaluate
    from trackmill.pipeline.evaluation.request import Options

    return evaluate("mot17", str(root / "gt" / "MOT17-train"), str(root / "results"), Options()).metrics


def their_mot(root: Path) -> Scores:
    """Totals by TrackEval's `Evaluator`, which writes and prints nothing here."""
    import trackeval

    from tests.evaluation import oracle

    gt, results = root / "gt" / "MOT17-train", root / "results"
    quiet = ("PRINT_RESULTS", "PRINT_CONFIG", "TIME_PROGRESS", "OUTPUT_SUMMARY", "OUTPUT_DETAILED", "PLOT_CURVES")
    evaluator = trackeval.Evaluator(dict.fromkeys(quiet, False) | {"LOG_ON_ERROR": None})
    dataset = oracle.mot_dataset("mot17", gt, results, [path.name for path in gt.iterdir()])
    with redirect_stdout(StringIO()):
        found, _ = evaluator.evaluate([dataset], list(oracle.metrics().values()))
    fields = found["MotChallenge2DBox"]["results"]["COMBINED_SEQ"]["pedestrian"]
    return as_scores(
        {name: value for metric in ("HOTA", "CLEAR", "Identity") for name, value in fields[metric].items()}
    )


def as_scores(fields: dict[str, Any]) -> Scores:
    """TrackEval's fields under our names, percent and counts."""
    ratios = ("HOTA", "DetA", "AssA", "LocA", "MOTA", "MOTP", "IDF1")
    counts = {"IDSW": "IDSW", "Frag": "Frag", "TP": "CLR_TP", "FN": "CLR_FN", "FP": "CLR_FP", "IDTP": "IDTP"}
    return {name: 100 * float(np.mean(fields[name])) for name in ratios} | {
        name: float(fields[field]) for name, field in counts.items()
    }


def teta_videos(num_videos: int, num_frames: int) -> list[Video]:
    """Small videos of 120 x 160 pixels with about six tracks of 36 classes, like `reference/teta/basic`."""
    options = {"num_objects": 7, "height": 120, "width": 160, "labels": tuple(range(1, NUM_CLASSES + 1))}
    faults = Faults(wrong_label=0.1)
    return [make_video(seed=seed, num_frames=num_frames, faults=faults, **options) for seed in range(num_videos)]


def our_teta(videos: list[Video]) -> Scores:
    """TETA of each class, fractions."""
    from trackmill.pipeline.evaluation.metrics.teta import TetaCounts, teta
    from trackmill.pipeline.evaluation.overlaps import find_overlaps

    labels = range(1, NUM_CLASSES + 1)
    total = dict.fromkeys(labels, TetaCounts.none())
    for video in videos:
        overlaps = find_overlaps(video.gt, video.predictions, video.num_frames)
        for label, counts in teta(video, overlaps, labels).items():
            total[label] += counts
    return flat({label: counts.scores() for label, counts in total.items()})


def their_teta(videos: list[Video]) -> Scores:
    """The same by the official rule's loops."""
    from tests.evaluation.teta_reference import teta_by_loops

    return flat(teta_by_loops(videos, range(1, NUM_CLASSES + 1)))


def flat(scores: dict[int, dict[str, float]]) -> Scores:
    """Class and score in one name."""
    return {f"{label} {name}": value for label, row in scores.items() for name, value in row.items()}


def agree(ours: Scores, theirs: Scores) -> None:
    """Refuse to time two sides that do not do the same."""
    for name, value in theirs.items():
        if abs(ours[name] - value) > 1e-9 * max(1, abs(value)):
            raise SystemExit(f"the sides differ in {name}: ours {ours[name]!r}, theirs {value!r}; nothing was timed")


def heading(text: str) -> None:
    """A table's title and columns."""
    print(f"\n{text}")
    print(f"  {'case':<28}{'ours CPU':>10}{'theirs':>10}{'ratio':>8}   {'ours wall':>10}{'theirs':>10}{'ratio':>8}")


def line(case: str, ours: Times, theirs: Times, aim: float | None = None) -> None:
    """A row in milliseconds."""
    ratio = theirs.cpu / ours.cpu
    verdict = "" if aim is None else f"   aim {aim:g}x: {'met' if ratio >= aim else 'MISSED'}"
    print(
        f"  {case:<28}{1e3 * ours.cpu:>10.1f}{1e3 * theirs.cpu:>10.1f}{ratio:>7.1f}x   "
        f"{1e3 * ours.wall:>10.1f}{1e3 * theirs.wall:>10.1f}{theirs.wall / ours.wall:>7.1f}x{verdict}"
    )


def from_files(folder: Path, cases: Iterable[tuple[int, int]], repeats: int) -> None:
    """HOTA, CLEAR and Identity from text files, with MOT17's preprocessing."""
    heading("mot17 from text files, milliseconds (theirs: TrackEval 1.3.0, Evaluator, prints and plots off)")
    for num_frames, num_objects in cases:
        root = folder / f"{num_frames}x{num_objects}"
        make_mot(root, num_frames, num_objects)
        agree(our_mot(root), their_mot(root))
        ours, theirs = race(lambda root=root: our_mot(root), lambda root=root: their_mot(root), repeats)
        line(f"{num_frames} frames x {num_objects} objects", ours, theirs, MOT_AIM)


def metrics_only(cases: Iterable[tuple[int, int]], repeats: int) -> None:
    """The three metrics alone, the overlaps of all boxes being known, each side in its own form."""
    from tests.evaluation import oracle
    from trackmill.pipeline.evaluation.overlaps import find_overlaps
    from trackmill.pipeline.evaluation.scoring import TrackCounts, count

    heading("the three metrics with overlaps given, milliseconds (theirs: TrackEval 1.3.0, eval_sequence and combine)")
    for num_frames, num_objects in cases:
        size = {"num_frames": num_frames // 2, "num_objects": num_objects, "height": 1080, "width": 1920}
        videos = mot_videos("dancetrack", count=2, **size)
        overlaps = [find_overlaps(video.gt, video.predictions, video.num_frames) for video in videos]
        data = [oracle.similarity_data(video) for video in videos]

        def our_metrics(overlaps: list[Any] = overlaps) -> Scores:
            # `pair_starts` and the like are kept once computed; a fresh object has to find them again.
            fresh = [one.select(np.ones(one.num_gt, bool), np.ones(one.num_pred, bool)) for one in overlaps]
            return sum((count(one) for one in fresh), start=TrackCounts.none()).row()

        def their_metrics(data: list[Any] = data) -> Scores:
            return as_scores(oracle.evaluate(data)[1])

        agree(our_metrics(), their_metrics())
        ours, theirs = race(our_metrics, their_metrics, repeats)
        line(f"{num_frames} frames x {num_objects} objects", ours, theirs)


def of_teta(num_videos: int, num_frames: int, repeats: int) -> None:
    """TETA of videos in memory, IoU included."""
    heading("TETA from boxes in memory, milliseconds (theirs: the official rule, transcribed as plain loops)")
    videos = teta_videos(num_videos, num_frames)
    agree(our_teta(videos), their_teta(videos))
    ours, theirs = race(lambda: our_teta(videos), lambda: their_teta(videos), repeats)
    line(f"{num_videos} videos x {num_frames} frames", ours, theirs, TETA_AIM)
    share = num_videos * num_frames * NUM_CLASSES / 1e6
    print(f"  a frame and class of {NUM_CLASSES}: ours {ours.cpu / share:.2f} us, theirs {theirs.cpu / share:.1f} us")


def in_processes(folder: Path, workers: int) -> None:
    """Many sequences in one process, in several, and where it is left to the program; seconds on the clock."""
    from trackmill.pipeline.evaluation.run import evaluate

    num_sequences, num_frames, num_objects = MANY_SEQUENCES
    size = {"num_frames": num_frames, "num_objects": num_objects, "height": 1080, "width": 1920}
    files = write_mot(folder / "many", mot_videos("mot17", count=num_sequences, **size), "mot17")
    print(f"\nmot17, {num_sequences} sequences of {num_frames} frames x {num_objects} objects, seconds on the clock")
    reports = {}
    for name, count in (("one process", 1), (f"{workers} processes", workers), ("left to the program", None)):
        begin = time.perf_counter()
        reports[name] = evaluate("mot17", str(files.gt), str(files.results), workers=count).as_json()
        print(f"  {name:<28}{time.perf_counter() - begin:>10.1f}")
    if len(set(reports.values())) > 1:
        raise SystemExit("the reports differ")


def peaks(folder: Path, cases: Iterable[tuple[int, int]], teta_case: tuple[int, int]) -> None:
    """Peak memory of each side in a process of its own."""
    print("\npeak memory, MB, each side in a process of its own (in brackets: above its imports and inputs)")
    print(f"  {'case':<28}{'ours':>16}{'theirs':>16}{'ratio':>8}")
    rows = [(f"{frames} frames x {objects} objects", "mot", f"{frames}x{objects}") for frames, objects in cases]
    rows.append((f"TETA, {teta_case[0]} videos", "teta", "{}x{}".format(*teta_case)))
    for name, kind, size in rows:
        measured = []
        for side in ("our", "their"):
            command = [sys.executable, "-m", "tests.benchmarks.evaluation", "--peak-of", side, kind, size, str(folder)]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            measured.append((float(printed[-2]), float(printed[-1])))
        (ours, ours_more), (theirs, theirs_more) = measured
        print(f"  {name:<28}{_bracketed(ours, ours_more)}{_bracketed(theirs, theirs_more)}{theirs / ours:>7.1f}x")


def _bracketed(peak: float, more: float) -> str:
    return f"{f'{peak:.0f} (+{more:.0f})':>16}"


def peak_of(side: str, kind: str, size: str, folder: str) -> None:
    """What a child of `peaks` does: evaluate one case, print the peak and what it was before the case, in MB."""
    first, second = (int(number) for number in size.split("x"))
    warm = Path(folder) / "warm-up"
    if kind == "mot":
        action = our_mot if side == "our" else their_mot
        action(warm)
        before = peak_memory()
        action(Path(folder) / size)
    else:
        run = our_teta if side == "our" else their_teta
        videos = teta_videos(first, second)
        run(videos[:1])
        before = peak_memory()
        run(videos)
    print(peak_memory(), peak_memory() - before)


def peak_memory() -> float:
    """Peak resident memory of this process in MB.

    `getrusage`'s ru_maxrss of a child starts at its parent's on Linux, so the kernel's own mark is read there.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return float(status.read_text().split("VmHWM:")[1].split()[0]) / 1e3
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    """Compare, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only the smallest case of each kind, two repeats")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each side; the best counts")
    parser.add_argument("--workers", type=int, default=max(2, os.cpu_count() or 1), help="processes; see in_processes")
    parser.add_argument("--peak-of", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of:
        peak_of(*options.peak_of)
        return
    if importlib.util.find_spec("trackeval") is None:
        parser.error("trackeval 1.3.0 is the other side of this comparison: install the extra 'oracle'")
    cases = MOT_CASES[:1] if options.quick else MOT_CASES
    teta_case = (6, TETA_CASE[1]) if options.quick else TETA_CASE
    repeats = min(2, options.repeats) if options.quick else options.repeats
    print(f"best of {repeats}, both sides in turns; numbers of both sides were equal within 1e-9 before timing")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_mot(folder / "warm-up", 20, 4)
        from_files(folder, cases, repeats)
        metrics_only(cases, repeats)
        of_teta(*teta_case, repeats=min(3, repeats))
        if not options.quick:
            in_processes(folder, options.workers)
        peaks(folder, cases, teta_case)


if __name__ == "__main__":
    main()
