"""MOTChallenge-style benchmarks from text files, with preprocessing, against TrackEval 1.3.0 reading the same files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from tests.evaluation.make_track_files import MotFiles, Style, mot_videos, write_mot
from tests.evaluation.make_tracks import Faults
from trackmill.pipeline.evaluation.benchmarks.mot import evaluate
from trackmill.pipeline.evaluation.report.report import Row
from trackmill.pipeline.evaluation.request import Options
from trackmill.pipeline.evaluation.tracks import Video, no_tracks

STYLES = get_args(Style)
COUNTS = {"IDSW": "IDSW", "Frag": "Frag", "MT": "MT", "PT": "PT", "ML": "ML"} | {
    **{name: f"CLR_{name}" for name in ("TP", "FN", "FP")},
    **{name: name for name in ("IDTP", "IDFN", "IDFP")},
}
RATIOS = {name: name for name in ("HOTA", "DetA", "AssA", "LocA", "DetRe", "DetPr", "AssRe", "AssPr", "OWTA")} | {
    **{name: name for name in ("MOTA", "MOTP", "MODA", "sMOTA", "IDF1", "IDP", "IDR")},
    "Recall": "CLR_Re",
    "Precision": "CLR_Pr",
    "Rcll": "CLR_Re",
    "Prcn": "CLR_Pr",
    "MT%": "MTR",
    "ML%": "MLR",
}
AT_THE_LOOSEST = {"HOTA(0)": "HOTA", "LocA(0)": "LocA"}
"""HOTA's scores at its first threshold."""

try:
    from tests.evaluation import oracle
except ModuleNotFoundError:
    oracle = None  # type: ignore[assignment]

needs_oracle = pytest.mark.skipif(
    oracle is None, reason="trackeval 1.3.0 is the oracle of this test: install the extra 'oracle'"
)


def compare(files: MotFiles, style: Style, preprocess: bool = True) -> None:
    """Every sequence and the total: counts exactly, percentages within 1e-10."""
    report = evaluate(style, str(files.gt), str(files.results), Options(preprocess=preprocess))
    each, together = oracle.evaluate_mot(style, files.gt, files.results, files.names, preprocess)
    assert set(report.sequences) == set(files.names)
    for name, wanted in zip(files.names, each):
        check_row(report.sequences[name], wanted)
    check_row(report.metrics, together)
    # TrackEval does not count the frames of a sequence without objects or without predictions.
    if all(wanted["CLR_Frames"] for wanted in each):
        rows = zip([*report.sequences.values(), report.metrics], [*each, together], strict=True)
        assert all(row["FAF"] == pytest.approx(wanted["FP_per_frame"], rel=1e-12) for row, wanted in rows)


def check_row(row: Row, wanted: dict[str, Any]) -> None:
    """Ratios are None where there is no ground truth; TrackEval writes zeros and ones there."""
    assert {name: row[name] for name in COUNTS} == {name: wanted[field] for name, field in COUNTS.items()}
    if wanted["CLR_TP"] + wanted["CLR_FN"] == 0:
        assert all(row[name] is None for name in [*RATIOS, *AT_THE_LOOSEST])
    else:
        percent = {name: 100 * float(np.mean(wanted[field])) for name, field in RATIOS.items()}
        percent |= {name: 100 * float(wanted[field][0]) for name, field in AT_THE_LOOSEST.items()}
        assert {name: row[name] for name in percent} == pytest.approx(percent, rel=1e-12, abs=1e-10)


@needs_oracle
@pytest.mark.parametrize("preprocess", [True, False])
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("seed", [0, 10])
def test_generated_benchmarks(tmp_path: Path, style: Style, preprocess: bool, seed: int) -> None:
    videos = mot_videos(style, seed=seed, count=3, num_frames=25, num_objects=14)
    compare(write_mot(tmp_path, videos, style, seed), style, preprocess)


@needs_oracle
@pytest.mark.parametrize("style", ["mot17", "mot20"])
def test_many_distractors_and_ties(tmp_path: Path, style: Style) -> None:
    """On a coarse grid predictions lie on several objects at once, pedestrians and distractors."""
    options = {"num_frames": 15, "num_objects": 25, "height": 200, "width": 240, "steps": 1 / 16}
    videos = mot_videos(style, seed=3, count=4, faults=Faults(doubled=0.3), **options)
    compare(write_mot(tmp_path, videos, style), style)


def without_predictions(video: Video) -> Video:
    return replace(video, predictions=no_tracks())


def without_objects(video: Video) -> Video:
    return replace(video, gt=no_tracks())


def with_gaps(video: Video) -> Video:
    """Frames without ground truth, without predictions, without both."""
    keep_gt, keep_pred = video.gt.frames % 5 > 1, video.predictions.frames % 7 > 2
    return replace(video, gt=video.gt.select(keep_gt), predictions=video.predictions.select(keep_pred))


@needs_oracle
@pytest.mark.parametrize("style", ["mot15", "mot17", "dancetrack"])
@pytest.mark.parametrize("change", [without_predictions, without_objects, with_gaps])
def test_a_sequence_with_a_lack(tmp_path: Path, style: Style, change: Callable[[Video], Video]) -> None:
    videos = mot_videos(style, seed=5, count=2, num_frames=20, num_objects=8)
    compare(write_mot(tmp_path, [change(videos[0]), videos[1]], style), style)


SPELLINGS: dict[str, Callable[[str], str]] = {
    "blanks after commas": lambda text: text.replace(",", ", "),
    "Windows line ends": lambda text: text.replace("\n", "\r\n"),
    "a comma at the end of lines": lambda text: text.replace("\n", ",\n"),
    "no newline at the end": lambda text: text.rstrip("\n"),
    "whole numbers with decimals": lambda text: "".join(
        ",".join([f"{float(cell):.1f}" if place < 2 else cell for place, cell in enumerate(line.split(","))]) + "\n"
        for line in text.splitlines()
    ),
    "from the last line to the first": lambda text: "\n".join(reversed(text.splitlines())) + "\n",
}


@needs_oracle
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_of_text(tmp_path: Path, spelling: str) -> None:
    videos = mot_videos("mot17", seed=8, num_frames=12, num_objects=8)
    files = write_mot(tmp_path, videos, "mot17")
    for path in [*files.gt.glob("*/gt/gt.txt"), *files.results.glob("*.txt")]:
        path.write_bytes(SPELLINGS[spelling](path.read_text()).encode())
    compare(files, "mot17")


# Two pedestrians cross; beside them a static person (7), a pedestrian not to be scored (flag 0) and a car (3).
# Track 12 takes over from 11, 15 lies on the static person and goes, 16 lies on the unscored pedestrian and counts as
# false (it is no distractor), 17 has no object.
SMALL_GT = """\
1,1,100,100,40,80,1,1,1
2,1,104,100,40,80,1,1,1
3,1,108,100,40,80,1,1,0.8
4,1,112,100,40,80,1,1,1
5,1,116,100,40,80,1,1,1
1,2,300,100,40,80,1,1,1
2,2,290,100,40,80,1,1,1
3,2,280,100,40,80,1,1,1
4,2,270,100,40,80,1,1,1
5,2,260,100,40,80,1,1,1
1,3,500,200,30,60,0,7,1
2,3,500,200,30,60,0,7,1
3,3,500,200,30,60,0,7,1
2,4,20,300,30,60,0,1,0.2
3,4,20,300,30,60,0,1,0.2
4,5,400,300,90,60,0,3,1
"""
SMALL_RESULTS = """\
1,11,100,100,40,80,0.9,-1,-1,-1
2,11,105,101,40,80,0.9,-1,-1,-1
3,12,108,100,40,80,0.9,-1,-1,-1
4,12,112,104,40,80,0.9,-1,-1,-1
5,12,118,100,36,80,0.9,-1,-1,-1
1,13,300,100,40,80,0.8,-1,-1,-1
2,13,292,100,40,80,0.8,-1,-1,-1
4,13,272,102,40,76,0.8,-1,-1,-1
5,13,300,100,40,80,0.8,-1,-1,-1
1,15,500,201,30,60,0.7,-1,-1,-1
2,15,500,201,30,60,0.7,-1,-1,-1
3,15,900,201,30,60,0.7,-1,-1,-1
2,16,20,300,30,60,0.6,-1,-1,-1
4,17,700,300,30,60,0.5,-1,-1,-1
"""
EXPECTED: dict[bool, dict[str, float]] = {
    True: {
        "HOTA": 51.6358312191346,
        "DetA": 54.41498483049729,
        "AssA": 49.00211839121613,
        "LocA": 94.12876035550288,
        "MOTA": 30.0,
        "MOTP": 93.74238303292634,
        "IDSW": 1,
        "Frag": 1,
        "MT": 1,
        "PT": 1,
        "ML": 0,
        "TP": 8,
        "FN": 2,
        "FP": 4,
        "IDTP": 6,
        "IDFN": 4,
        "IDFP": 6,
        "IDF1": 54.54545454545454,
        "IDP": 50.0,
        "IDR": 60.0,
    },
    False: {
        "HOTA": 48.32294521031091,
        "DetA": 47.65590446704998,
        "AssA": 49.00211839121613,
        "LocA": 94.12876035550288,
        "MOTA": 10.0,
        "MOTP": 93.74238303292634,
        "IDSW": 1,
        "Frag": 1,
        "MT": 1,
        "PT": 1,
        "ML": 0,
        "TP": 8,
        "FN": 2,
        "FP": 6,
        "IDTP": 6,
        "IDFN": 4,
        "IDFP": 8,
        "IDF1": 50.0,
        "IDP": 42.857142857142854,
        "IDR": 60.0,
    },
}
"""With and without preprocessing: without, both predictions on the static person are false alarms."""


def small_case(root: Path) -> MotFiles:
    """The files of the case above."""
    files = MotFiles(root=root, gt=root / "gt", results=root / "results", names=("MOT17-01",))
    (files.gt / "MOT17-01" / "gt").mkdir(parents=True)
    files.results.mkdir()
    (files.gt / "MOT17-01" / "gt" / "gt.txt").write_text(SMALL_GT)
    (files.gt / "MOT17-01" / "seqinfo.ini").write_text("[Sequence]\nname=MOT17-01\nseqLength=6\n")
    (files.results / "MOT17-01.txt").write_text(SMALL_RESULTS)
    return files


@pytest.mark.parametrize("preprocess", [True, False])
def test_stored_numbers(tmp_path: Path, preprocess: bool) -> None:
    """Holds without TrackEval too: its numbers for the case above, percent and counts."""
    files = small_case(tmp_path)
    report = evaluate("mot17", str(files.gt), str(files.results), Options(preprocess=preprocess))
    expected = EXPECTED[preprocess]
    for row in (report.metrics, report.sequences["MOT17-01"]):
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-12)


@needs_oracle
@pytest.mark.parametrize("preprocess", [True, False])
def test_stored_numbers_are_those_of_the_oracle(tmp_path: Path, preprocess: bool) -> None:
    compare(small_case(tmp_path), "mot17", preprocess)
