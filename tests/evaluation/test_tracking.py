"""A video model is scored from pictures: the numbers of `trackmill track` and `trackmill evaluate`, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.tracking.make_tracking import make_frame, source_frame, square_boxes, write_frames
from trackmill.pipeline.evaluation.tracking import TrackingBenchmark, tracked_rows
from trackmill.pipeline.tracking.frame_reader import ReadLimits
from trackmill.pipeline.tracking.timing import StageTimes
from trackmill.schemas.detections import make_detections
from trackmill.schemas.tracking import SourceFrame, TrackedObjects

NUM_FRAMES = 6
PLAIN = ReadLimits(isolate=False)


class Known:
    """Knows where the squares are, and mixes two identities up at one frame."""

    names, category_ids = ("person",), (1,)

    def __init__(self, switch_at: int = -1) -> None:
        self.switch_at, self.num_tracks, self.seen = switch_at, 0, list[int]()

    def reset(self) -> None:
        self.num_tracks, self.seen = 0, []

    def track(self, frames: Sequence[SourceFrame], times: StageTimes) -> list[TrackedObjects]:
        results = []
        for frame in frames:
            step, ids = frame.number - 1, [0, 1, 2]
            self.seen.append(frame.number)
            assert np.array_equal(frame.image, make_frame(step))
            if step >= self.switch_at >= 0:
                ids = [1, 0, 2]
            self.num_tracks = 3
            results.append(TrackedObjects.of(make_detections(square_boxes(step), names=self.names), ids))
        return results


def write_truth(folder: Path, name: str = "seq") -> Path:
    """A MOTChallenge sequence of the squares, pictures and all."""
    write_frames(folder / name / "img1", NUM_FRAMES)
    lines = [
        f"{step + 1},{identity + 1},{x0},{y0},{x1 - x0},{y1 - y0},1,1,1"
        for step in range(NUM_FRAMES)
        for identity, (x0, y0, x1, y1) in enumerate(square_boxes(step).tolist())
    ]
    (folder / name / "gt").mkdir()
    (folder / name / "gt" / "gt.txt").write_text("\n".join(lines) + "\n")
    (folder / name / "seqinfo.ini").write_text(f"[Sequence]\nname={name}\nseqLength={NUM_FRAMES}\nframeRate=10\n")
    return folder


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_truth(tmp_path_factory.mktemp("truth"))


def test_a_perfect_model_and_one_that_switches(truth: Path) -> None:
    benchmark = TrackingBenchmark(gt=str(truth), read=PLAIN)
    benchmark.check()
    perfect = benchmark.measure(Known())
    assert [perfect.metrics[name] for name in ("HOTA", "MOTA", "IDF1", "IDSW")] == pytest.approx([100, 100, 100, 0])
    switched = benchmark.measure(Known(switch_at=3))
    # Two of three identities are wrong for half of the frames.
    assert switched.metrics["IDSW"] == 2
    assert switched.metrics["MOTA"] == pytest.approx(100 * (1 - 2 / 18))
    assert switched.metrics["IDF1"] == pytest.approx(100 * 12 / 18)
    assert list(switched.sequences) == ["seq"]


@pytest.mark.parametrize(("frames", "wanted"), [("3:5", [3, 4, 5]), ("0.5:", [4, 5, 6]), (":0.5", [1, 2, 3])])
def test_only_the_frames_that_count_are_tracked(frames: str, wanted: list[int], truth: Path) -> None:
    model = Known()
    seen: list[int] = []
    model.reset = lambda: seen.extend(model.seen)  # type: ignore[method-assign]
    report = TrackingBenchmark(gt=str(truth), frames=frames, read=PLAIN, batch_size=2).measure(model)
    assert seen == wanted
    assert report.metrics["GT"] == 9 and report.metrics["HOTA"] == pytest.approx(100)


def test_rows_in_memory() -> None:
    frames = [source_frame(step) for step in range(4)]
    rows = tracked_rows(Known(), frames, batch_size=3)
    assert rows.frames.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert rows.ids.tolist() == [0, 1, 2] * 4
    assert np.array_equal(rows.boxes[3:6], square_boxes(1))
    assert len(tracked_rows(Known(), [])) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sequences": ("sek",)}, "did you mean 'seq'"),
        ({"frames": "9:"}, "seq: there is no frame to track: frames 9:"),
        ({"frames": "3-5"}, "FROM:TO"),
        ({"gt_file": "gt_half.txt"}, "no SEQUENCE/gt/gt_half.txt"),
        ({"pictures": "{folder}/elsewhere"}, "seq: no pictures at"),
        ({"gt": "{folder}/nowhere"}, "nowhere"),
    ],
)
def test_what_is_missing_is_named_before_anything_is_tracked(
    truth: Path, changes: dict[str, object], message: str
) -> None:
    values = {
        key: str(value).format(folder=truth) if isinstance(value, str) else value for key, value in changes.items()
    }
    benchmark = TrackingBenchmark(**{"gt": str(truth), "read": PLAIN, **values})  # type: ignore[arg-type]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        benchmark.check()
