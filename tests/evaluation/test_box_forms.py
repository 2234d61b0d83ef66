"""Results whose boxes are written in another form score near zero; a note says what they look like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.make_tao import make_files, make_videos, write_files
from tests.evaluation.make_track_files import mot_videos, write_mot
from trackmill.pipeline.evaluation.report.report import Report
from trackmill.pipeline.evaluation.request import Options
from trackmill.pipeline.evaluation.run import evaluate

Box = list[float]
FORMS: dict[str, Callable[[Box], Box]] = {
    "x0, y0, x1, y1": lambda box: [box[0], box[1], box[0] + box[2], box[1] + box[3]],
    "fractions of the picture, 0 to 1": lambda box: [box[0] / 640, box[1] / 480, box[2] / 640, box[3] / 480],
    "x and y of the centre, width, height": lambda box: [box[0] + box[2] / 2, box[1] + box[3] / 2, box[2], box[3]],
}


def hints(report: Report) -> list[str]:
    return [note for note in report.notes if "look like" in note]


@pytest.mark.parametrize("form", FORMS)
def test_text(tmp_path: Path, form: str) -> None:
    files = write_mot(tmp_path, mot_videos("mot17", count=2, num_frames=15, num_objects=8), "mot17")
    assert hints(evaluate("mot17", str(files.gt), str(files.results))) == []
    for path in files.results.iterdir():
        rows = [line.split(",") for line in path.read_text().splitlines()]
        lines = [[*row[:2], *map(str, FORMS[form](list(map(float, row[2:6])))), *row[6:]] for row in rows]
        path.write_text("".join(",".join(row) + "\n" for row in lines))
    (hint,) = hints(evaluate("mot17", str(files.gt), str(files.results)))
    assert f"{', '.join(files.names)}: scored near zero, and the boxes of the results look like {form};" in hint


@pytest.mark.parametrize("benchmark", ["tao", "ovtb"])
@pytest.mark.parametrize("form", FORMS)
def test_json(tmp_path: Path, form: str, benchmark: str) -> None:
    truth, results = make_files(make_videos(2), 2)
    assert hints(evaluate(benchmark, *write_files(tmp_path, truth, results))) == []
    for row in results:
        row["bbox"] = FORMS[form](row["bbox"])
    (hint,) = hints(evaluate(benchmark, *write_files(tmp_path, truth, results)))
    assert f"look like {form};" in hint


def test_a_tracker_that_finds_nothing_is_not_suspected(tmp_path: Path) -> None:
    """Boxes of the right form, elsewhere; and no boxes at all."""
    files = write_mot(tmp_path, mot_videos("mot17", count=1, num_frames=15, num_objects=8), "mot17")
    (path,) = files.results.iterdir()
    rng = np.random.default_rng(0)
    rows = [
        [1 + step % 15, step // 15, *rng.uniform(900, 990, 2).round(1), 20, 30, 1, -1, -1, -1] for step in range(60)
    ]
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    report = evaluate("mot17", str(files.gt), str(files.results), Options())
    assert report.metrics["TP"] == 0 and hints(report) == []
    path.write_text("")
    assert hints(evaluate("mot17", str(files.gt), str(files.results))) == []
