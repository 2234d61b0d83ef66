"""Rules by motion: the identities of the package as it gives them, its settings, and no model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

trackers = pytest.importorskip("trackers")
supervision = pytest.importorskip("supervision")

from tests.tracking.make_tracking import (  # noqa: E402
    SquareDetector,
    make_frame,
    source_frame,
    write_frames,
    write_mot_detections,
)
from trackmill.jobs.track import main  # noqa: E402
from trackmill.pipeline.formats.mot_text import parse_mot_text  # noqa: E402
from trackmill.pipeline.tracking.build import make_video_model  # noqa: E402
from trackmill.pipeline.tracking.motion import MOTION_RULES, MotionRule, MotionTracking  # noqa: E402
from trackmill.pipeline.tracking.timing import StageTimes  # noqa: E402
from trackmill.schemas.detections import Detections, make_detections  # noqa: E402
from trackmill.schemas.errors import InputError  # noqa: E402

RULES = tuple(MOTION_RULES)


def boxes_of(step: int) -> Detections:
    """Four boxes that move, of which one is missing now and then; in another order in each frame."""
    random = np.random.default_rng(step)
    left = np.array([10, 200, 400, 600]) + np.array([3, -2, 4, -3]) * step
    rows = np.array([[x, 50, x + 40, 150] for x in left], np.float32)
    scores = np.array([0.95, 0.9, 0.85, 0.4], np.float32)
    kept = random.permutation(4)[: 4 - (step % 5 == 4)]
    return make_detections(rows[kept], scores[kept])


@pytest.mark.parametrize("name", RULES)
def test_identities_are_those_of_the_package(name: str) -> None:
    rule, theirs = MotionRule(name), getattr(trackers, MOTION_RULES[name])()
    given = 0
    for step in range(25):
        frame, found = source_frame(step, make_frame(step, 200, 700)), boxes_of(step)
        ids = rule.update(found, frame)
        raw = supervision.Detections(xyxy=found.boxes.astype(float), confidence=found.scores.astype(float))
        image = np.ascontiguousarray(frame.image[:, :, ::-1]) if name == "botsort" else None
        wanted = theirs.update(raw, image)
        by_box = {tuple(box): int(number) for box, number in zip(wanted.xyxy, wanted.tracker_id, strict=True)}
        assert ids.tolist() == [by_box.get(tuple(box), -1) for box in found.boxes.astype(float)]
        given += int((ids >= 0).sum())
    assert given > 50


def test_a_track_that_was_seen_too_seldom_has_no_identity_yet() -> None:
    rule = MotionRule("bytetrack", {"minimum_consecutive_frames": 3})
    ids = [rule.update(make_detections([[10, 10, 50, 90]], [0.9]), source_frame(index)) for index in range(4)]
    assert [each.tolist() for each in ids] == [[-1], [-1], [0], [0]]


def test_nothing_counts_as_detected_in_frames_that_are_missing() -> None:
    def last(gap: int) -> list[int]:
        rule = MotionRule("sort", {"lost_track_buffer": 5, "minimum_consecutive_frames": 1})
        for index in (0, 1, 2, 2 + gap, 3 + gap):
            ids = rule.update(make_detections([[10, 10, 50, 90]], [0.9]), source_frame(index))
        return list(ids.tolist())

    assert last(3) == [0]
    assert last(30) == [1], "the track was lost meanwhile"
    assert last(10**12) == [1], "and a long gap takes no longer than a short one"


@pytest.mark.parametrize("name", RULES)
def test_num_tracks_and_reset(name: str) -> None:
    model = MotionTracking(SquareDetector(), MotionRule(name))
    frames = [source_frame(index, make_frame(index)) for index in range(10)]
    first = model.track(frames, StageTimes())
    handed_out = {identity for each in first for identity in each.ids.tolist()}
    assert handed_out == set(range(model.num_tracks)) and model.num_tracks > 0
    model.reset()
    assert model.num_tracks == 0
    again = [each for frame in frames for each in model.track([frame], StageTimes())]
    assert [each.ids.tolist() for each in again] == [each.ids.tolist() for each in first]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lost_track_bufer": 60}, "unknown key 'tracker.lost_track_bufer'; did you mean 'tracker.lost_track_buffer'?"),
        ({"match_score_thr": 0.5}, "known keys: lost_track_buffer"),
        ({"iou": "giou"}, "unknown key 'tracker.iou'"),
        ({"lost_track_buffer": 1.5}, "tracker.lost_track_buffer: should be a whole number, found 1.5"),
        ({"frame_rate": "fast"}, "tracker.frame_rate: should be a number"),
        ({"frame_rate": 0}, "frame_rate must be a finite positive value"),
        ({"lost_track_buffer": True}, "should be a whole number"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        MotionRule("sort", settings)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "options",
    [["--model", "masa_r50"], ["--weights", "x.pth"], ["--masks"], ["--set", "size.long_side=640"]],
)
def test_what_is_said_of_a_model_is_refused(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_frames(tmp_path / "seq" / "img1", 2)
    det = write_mot_detections(tmp_path / "det.txt", 2)
    fine = ["--video", str(tmp_path / "seq"), "--detections", str(det), "--output", str(tmp_path / "out")]
    assert main([*fine, "--tracker", "sort", *options]) == 2
    assert "sort links boxes by their motion and needs no model; leave it out" in capsys.readouterr().err


def test_offline_mode_is_refused_before_anything_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--video", "none.mp4", "--output", "out", "--tracker", "sort", "--offline"]) == 2
    assert "--offline joins what looks alike, and --tracker sort looks at nothing" in capsys.readouterr().err


def test_detections_inside_a_model_are_refused() -> None:
    with pytest.raises(InputError, match="lies inside a model, and --tracker sort loads none"):
        make_video_model(model=None, detections="masa", tracker="sort")


def test_the_job_loads_no_model(tmp_path: Path) -> None:
    write_frames(tmp_path / "seq" / "img1", 10)
    det = write_mot_detections(tmp_path / "det.txt", 10)
    arguments = ["--video", tmp_path / "seq", "--detections", det, "--output", tmp_path / "out"]
    arguments += ["--tracker", "bytetrack", "--set", "tracker.lost_track_buffer=60"]
    code = (
        "import sys; from trackmill.jobs.track import main; code = main(sys.argv[1:]); "
        "sys.exit(code or ('torch' in sys.modules and 'torch was imported'))"
    )
    words = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stderr
    assert "--weights" not in done.stderr
    rows = parse_mot_text((tmp_path / "out" / "seq.txt").read_bytes(), "seq")
    assert len(set(rows.ids.tolist())) == 3 and rows.frames.min() == 2, "named in the second frame"


def test_the_package_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    write_frames(tmp_path / "seq" / "img1", 2)
    det = write_mot_detections(tmp_path / "det.txt", 2)
    fine = ["--video", str(tmp_path / "seq"), "--detections", str(det), "--output", str(tmp_path / "out")]
    assert main([*fine, "--tracker", "ocsort"]) == 2
    assert "needs the package trackers, 2.6 or newer" in (said := capsys.readouterr().err)
    assert 'pip install -e ".[motion]"' in said
