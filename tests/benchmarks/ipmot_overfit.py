"""Does IP-MOT learn to track, and what do its parts do? `ip_mot_tiny` learns twenty frames of a real video by heart.

Run it with `python -m tests.benchmarks.ipmot_overfit`: it mines the clip, trains, tracks and evaluates by the commands
that people type, from pictures alone, and prints a table. A training takes some seven minutes of one core.
Without `--sequence` it takes PETS09-S2L1 of `../shared/data/mot15`. Runs are kept in `--output`, and a run that is
there is not trained again.

Rows (`--rows`), each one training:

- `recipe`: query-balanced strategy and deduplication module, as in the paper. The same weights are tracked a second
  time with the score sigmoid(c), without the module: its claim is that every tracked person then has a duplicate (C7).
- `without_dem`: trained without the module.
- `without_qbs`: MOTR's assignment, so no module either.
- `identity`, `memotr`: other updates of the track queries.

Columns beside the scores: duplicates for each tracked person (detect queries at or above the threshold on people who
have a live track); recall of detect queries on these people by their class score c (C5); positives of detect over those
of track queries while training. C6 is checked on the first row: without the embedding head, tracks are the same. There
is no alignment here, for want of CLIP's weights: a CLIP with random ones would teach nothing.

`--kill` trains the first row twice: once in one go, once killed (SIGKILL) in the middle and resumed. The
weights must be equal to the bit.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_iou

from trackmill.models.ipmot import load
from trackmill.models.ipmot.model import FrameOutput, IpMot
from trackmill.models.ipmot.stream import Stream, StreamObjects
from trackmill.pipeline.tracking.frames import open_frames

SHARED = Path(__file__).parents[3] / "shared" / "data" / "mot15" / "PETS09-S2L1"
ROWS: dict[str, Sequence[str]] = {
    "recipe": (),
    "without_dem": ("model.changes={dem=false}",),
    "without_qbs": ("model.changes={qbs=false}",),
    "identity": ('model.changes={track_update="identity"}',),
    "memotr": ('model.changes={track_update="memotr"}',),
}
SCORES = ("MOTA", "IDF1", "HOTA", "IDSW")
SAME = 0.5
"""IoU from which two boxes are of one person."""


def main() -> int:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--sequence", default=str(SHARED), metavar="FOLDER", help="img1 and gt of MOTChallenge")
    add("--frames", type=int, default=20, metavar="N", help="its first ones")
    add("--rows", nargs="+", default=["recipe", "without_dem", "without_qbs"], choices=ROWS)
    add("--seeds", type=int, nargs="+", default=[0])
    add("--output", default="ipmot_overfit", metavar="FOLDER")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe, for all rows")
    add("--kill", action="store_true", help="also compare a killed and resumed training with one in one go")
    options = parser.parse_args()
    if not Path(options.sequence).is_dir():
        print(f"{options.sequence} is not here: give --sequence", file=sys.stderr)
        return 2
    work = Path(options.output)
    sequence = excerpt(Path(options.sequence), work / "sequences", options.frames)
    data = work / f"data_{options.frames}"
    if not (data / "manifest").is_dir():
        trackmill("mine", "--source", "mot", "--proposer", "annotations", "--executor", "inline", "--input",
                  sequence.parent, "--output", data, "--set", f"read.frames_per_clip={options.frames}")  # fmt: skip
    lines = []
    for row in options.rows:
        for seed in options.seeds:
            run = work / f"{row}_{seed}"
            settings = [*ROWS[row], *options.set]
            took = train(data, run, seed, settings)
            lines += measured(row, seed, sequence, run, took)
            print(table(lines), flush=True)
    first = work / f"{options.rows[0]}_{options.seeds[0]}"
    print(f"\nC6, tracks without the embedding head: {'the same' if same_without_head(first, sequence) else 'OTHERS'}")
    trackmill("curves", *(f"{row}_{seed}={work / f'{row}_{seed}'}" for row in options.rows for seed in options.seeds),
              "--output", work / "curves.png")  # fmt: skip
    print(f"curves: {work / 'curves.png'}")
    if options.kill:
        settings = [*ROWS[options.rows[0]], *options.set]
        other = killed_and_resumed(data, work / "killed", options.seeds[0], settings, first)
        equal = other.read_bytes() == weights_of(first).read_bytes()
        print(f"killed and resumed: {'the same weights, to the bit' if equal else 'OTHER WEIGHTS'}")
        return 0 if equal else 1
    return 0


def excerpt(source: Path, folder: Path, frames: int) -> Path:
    """The first frames of a sequence with their ground truth, as a sequence of its own."""
    target = folder / str(frames) / source.name
    if not (target / "gt" / "gt.txt").is_file():
        for part in ("img1", "gt"):
            (target / part).mkdir(parents=True, exist_ok=True)
        for picture in sorted((source / "img1").iterdir())[:frames]:
            shutil.copyfile(picture, target / "img1" / picture.name)
        truth = (source / "gt" / "gt.txt").read_text().splitlines()
        kept = [line for line in truth if line and int(line.split(",")[0]) <= frames]
        (target / "gt" / "gt.txt").write_text("".join(f"{line}\n" for line in kept))
    return target


def trackmill(*arguments: object) -> None:
    """One of the commands, to its end; what it prints is shown if it fails."""
    done = subprocess.run(command(*arguments), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise SystemExit(f"trackmill {arguments[0]} ended with {done.returncode}:\n{done.stdout}")


def command(*arguments: object) -> list[str]:
    """A command as a process of this Python."""
    return [sys.executable, "-m", "trackmill", *map(str, arguments)]


def training(data: Path, run: Path, seed: int, settings: Sequence[str]) -> list[str]:
    """The command that trains a row."""
    chosen = [word for setting in settings for word in ("--set", setting)]
    return command("train", "--recipe", "ip_mot_tiny", "--data", data, "--output", run, "--seed", seed, "--device",
                   "cpu", *chosen)  # fmt: skip


def weights_of(run: Path) -> Path:
    """What a finished run leaves."""
    return run / "final" / "model.safetensors"


def train(data: Path, run: Path, seed: int, settings: Sequence[str]) -> float:
    """Train a row, if it is not there; seconds on the clock, NaN if it was there."""
    if weights_of(run).is_file():
        return float("nan")
    print(f"training {run.name}: metrics.jsonl in {run} tells how far it is", file=sys.stderr, flush=True)
    began = time.perf_counter()
    trackmill(*training(data, run, seed, settings)[3:])
    return time.perf_counter() - began


def killed_and_resumed(data: Path, run: Path, seed: int, settings: Sequence[str], whole: Path) -> Path:
    """Train once more, kill it behind a checkpoint in the middle, and go on."""
    shutil.rmtree(run, ignore_errors=True)
    half = len(rows_of(whole)) // 2
    process = subprocess.Popen(
        training(data, run, seed, settings), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and len(rows_of(run)) < half:
        time.sleep(0.5)
    if process.poll() is not None:
        raise SystemExit(f"training ended with {process.returncode} before it was killed")
    process.send_signal(signal.SIGKILL)
    process.wait()
    print(f"killed at step {int(rows_of(run)[-1]['step'])}")
    trackmill(*training(data, run, seed, settings)[3:])
    return weights_of(run)


def rows_of(run: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl that are whole."""
    path = run / "metrics.jsonl"
    text = path.read_text() if path.is_file() else ""
    rows = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [row for row in rows if "grad_norm" in row]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of the table."""

    name: str
    seed: int
    scores: dict[str, float]
    duplicates: float
    recall: float
    balance: float
    identities: int
    took: float


def measured(row: str, seed: int, sequence: Path, run: Path, took: float) -> list[Line]:
    """By the commands `track` and `evaluate`; and, where there is a deduplication module, a second line without it."""
    model = load("ip_mot_tiny", weights_of(run)).eval()
    pictures = [frame.image for frame in open_frames(str(sequence))]
    trackmill("track", "--model", "ip_mot_tiny", "--weights", weights_of(run), "--video", sequence, "--output",
              run / "tracks", "--device", "cpu")  # fmt: skip
    balance = balance_of(rows_of(run))
    lines = [line(row, seed, sequence, run / "tracks", model, pictures, balance, took)]
    if model.deduplication is not None:
        model.deduplication = None
        folder = run / "tracks_without_dem"
        folder.mkdir(exist_ok=True)
        write(folder / f"{sequence.name}.txt", model, pictures)
        lines.append(line("  tracked without DEM", seed, sequence, folder, model, pictures, balance, float("nan")))
    return lines


def line(
    name: str,
    seed: int,
    sequence: Path,
    tracks: Path,
    model: IpMot,
    pictures: Sequence[NDArray[np.uint8]],
    balance: float,
    took: float,
) -> Line:
    """The scores of a folder of tracks, and what the queries do."""
    report = tracks.with_suffix(".json")
    trackmill("evaluate", "--benchmark", "mot15", "--gt", sequence.parent, "--results", tracks, "--output", report)
    scores = json.loads(report.read_text())["metrics"]
    duplicates, recall, identities = look(model, pictures, truth_of(sequence))
    return Line(
        name=name,
        seed=seed,
        scores={each: float(scores[each]) for each in SCORES},
        duplicates=duplicates,
        recall=recall,
        balance=balance,
        identities=identities,
        took=took,
    )


def look(
    model: IpMot, pictures: Sequence[NDArray[np.uint8]], truth: dict[int, NDArray[np.float32]]
) -> tuple[float, float, int]:
    """Duplicates for each tracked person, recall of detect queries on tracked people, number of identities."""
    stream = Stream(model)
    duplicates = tracked = found = 0
    threshold = stream.settings.score_threshold
    with recorded(model) as outputs:
        for number, picture in enumerate(pictures, start=1):
            stream.step(picture)
            output, (height, width) = outputs[-1], picture.shape[:2]
            boxes = corners(output.boxes[-1]) * torch.tensor([width, height, width, height])
            detect = torch.arange(len(boxes)) < output.num_detect
            live = boxes[~detect & (output.scores >= threshold)]
            sure = boxes[detect & (output.scores >= threshold)]
            seen = boxes[detect & (output.logits[-1].sigmoid() >= threshold)]
            people = torch.from_numpy(truth.get(number, np.zeros((0, 4), np.float32)))
            duplicates += int(covered(sure, live).sum())
            have_track = people[covered(people, live)]
            tracked += len(have_track)
            found += int(covered(have_track, seen).sum())
    return duplicates / max(1, tracked), found / max(1, tracked), stream.num_tracks


@contextmanager
def recorded(model: IpMot) -> Iterator[list[FrameOutput]]:
    """What the network says of each frame, while a stream runs."""
    outputs: list[FrameOutput] = []
    step = model.step

    def watched(*given: Any) -> FrameOutput:
        outputs.append(step(*given))
        return outputs[-1]

    model.step = watched  # type: ignore[method-assign, assignment]
    try:
        yield outputs
    finally:
        del model.step


def corners(boxes: torch.Tensor) -> torch.Tensor:
    """cx, cy, w, h as xyxy."""
    return torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], dim=1)


def covered(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """(N,) bool: which boxes one of the others lies on."""
    if not len(boxes) or not len(others):
        return torch.zeros(len(boxes), dtype=torch.bool)
    overlaps: torch.Tensor = box_iou(boxes, others)
    return overlaps.amax(dim=1) >= SAME


def truth_of(sequence: Path) -> dict[int, NDArray[np.float32]]:
    """Boxes xyxy in pixels, which begin at 0, by frame number."""
    rows = np.loadtxt(sequence / "gt" / "gt.txt", delimiter=",", ndmin=2)
    boxes = rows[:, 2:6] - [1, 1, 0, 0]
    boxes[:, 2:] += boxes[:, :2]
    return {int(number): boxes[rows[:, 0] == number].astype(np.float32) for number in np.unique(rows[:, 0])}


def balance_of(rows: Sequence[dict[str, Any]]) -> float:
    """Positives of detect queries over those of track queries, all along the training."""
    tracks = sum(row["positives_track"] for row in rows)
    return sum(row["positives_detect"] for row in rows) / tracks if tracks else float("nan")


def write(path: Path, model: IpMot, pictures: Sequence[NDArray[np.uint8]]) -> None:
    """MOTChallenge text of the tracks, as `trackmill track` writes it."""
    found = [(number, each) for number, each in enumerate(tracks_of(model, pictures), start=1)]
    text = []
    for number, each in found:
        for identity, (left, top, right, bottom), score in zip(each.ids, each.boxes, each.scores, strict=True):
            size = f"{right - left:.2f},{bottom - top:.2f}"
            text.append(f"{number},{identity + 1},{left + 1:.2f},{top + 1:.2f},{size},{score:.4f},-1,-1,-1\n")
    path.write_text("".join(text))


def tracks_of(model: IpMot, pictures: Sequence[NDArray[np.uint8]]) -> list[StreamObjects]:
    """Frame by frame."""
    stream = Stream(model)
    return [stream.step(picture) for picture in pictures]


def same_without_head(run: Path, sequence: Path) -> bool:
    """Whether the embedding head may be dropped: the TrackBook is never in the file."""
    model = load("ip_mot_tiny", weights_of(run)).eval()
    pictures = [frame.image for frame in open_frames(str(sequence))]
    whole = tracks_of(model, pictures)
    model.embedding = None
    return all(
        np.array_equal(one.ids, other.ids) and np.array_equal(one.boxes, other.boxes)
        for one, other in zip(whole, tracks_of(model, pictures), strict=True)
    )


def table(lines: Sequence[Line]) -> str:
    """Markdown."""
    names = ("row", "seed", *SCORES, "identities", "duplicates / tracked", "recall of detect", "detect / track", "s")
    text = ["", "| " + " | ".join(names) + " |", "| --- " * len(names) + "|"]
    for each in lines:
        scores = [f"{each.scores[name]:.1f}" for name in SCORES[:-1]] + [f"{each.scores['IDSW']:.0f}"]
        rest = (f"{each.identities}", f"{each.duplicates:.3f}", f"{each.recall:.3f}", f"{each.balance:.2f}")
        took = "" if np.isnan(each.took) else f"{each.took:.0f}"
        text.append("| " + " | ".join([each.name, str(each.seed), *scores, *rest, took]) + " |")
    return "\n".join(text)


if __name__ == "__main__":
    sys.exit(main())
