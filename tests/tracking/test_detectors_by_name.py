"""`trackmill track --detections WHAT`: the same options whoever finds the boxes, and labels that are right in files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")

from tests.tracking.make_tracking import square_boxes, write_frames
from trackmill.jobs.track import main

SMALL = ["--model", "masa_lite0", "--set", "size.long_side=64", "--set", "tracker.init_score_thr=0"]

SSD = ["--detections", "torchvision:ssdlite320_mobilenet_v3_large"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five frames with three squares, of classes 2, 5 and 5; each square is there twice, a pixel apart."""
    write_frames(tmp_path / "seq", 5)
    lines = []
    for step in range(5):
        for place, (x0, y0, x1, y1) in enumerate(square_boxes(step).tolist()):
            for shift, score in ((0, 0.9 - place / 10), (1, 0.5)):
                label = 2 if place == 0 else 5
                lines.append(f"{step + 1},-1,{x0 + shift},{y0},{x1 - x0},{y1 - y0},{score},{label},1")
    (tmp_path / "det.txt").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def job(*arguments: str) -> int:
    return main(["--video", "seq", "--output", "out", "--device", "cpu", "--format", "coco", *SMALL, *arguments])


@pytest.mark.parametrize(
    ("arguments", "count", "labels"),
    [
        ((), 30, {2, 5}),
        (("--set", "detector.nms_iou=0.5"), 15, {2, 5}),
        (("--set", "detector.nms_iou=0.5", "--classes", "5"), 10, {5}),
        (("--set", "detector.max_boxes=1"), 5, {2}),
        (("--set", "detector.classes=5", "--min-score", "0.75"), 5, {5}),
        (("--set", 'detector.classes=["2", "5"]', "--min-score", "0.85"), 5, {2}),
    ],
)
def test_options_of_detections_in_a_file(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], count: int, labels: set[int]
) -> None:
    for detections in ("det.txt", "file:det.txt")[: 2 if not arguments else 1]:
        assert job("--detections", detections, *arguments) == 0
        assert f"5 frames, {count} detections" in capsys.readouterr().out
        written = json.loads((folder / "out" / "seq.json").read_text())
        assert {each["id"]: each["name"] for each in written["categories"]} == {2: "2", 5: "5"}
        assert {each["category_id"] for each in written["annotations"]} == labels


def test_a_detector_of_transformers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    from tests.detectors.tiny_hf import save_detr

    save_detr(folder / "detr", ("cat", "dog"))
    (folder / "classes.txt").write_text("dog\ncat\n")
    assert job("--detections", "hf:detr", "--min-score", "0.01", "--classes", "classes.txt") == 0
    written = json.loads((folder / "out" / "seq.json").read_text())
    assert [(each["id"], each["name"]) for each in written["categories"]] == [(1, "cat"), (2, "dog")]
    assert len(written["annotations"]) > 5 and {each["category_id"] for each in written["annotations"]} <= {1, 2}
    assert job("--detections", "hf:detr", "--classes", "cow") == 2
    assert "detector hf:detr has no class 'cow'; it knows cat, dog" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--detections", "detic"], "name its weights: detic:PATH or detic:URL, or track with the model"),
        (["--detections", "detic:"], "detector detic: name its weights: detic:PATH or detic:URL"),
        (["--detections", "hf:detr", "--text-weights", "x"], "hf:detr: compares no vectors of names"),
        (["--detections", "detic:x.pth", "--min-score", "7"], "min_score: Input should be less than or equal to 1"),
        (["--detections", "detics:x.pth"], "no detector is called 'detics'; did you mean 'detic'"),
        (["--detections", "ssdlite-persn"], "no detector is called 'ssdlite-persn'; did you mean 'ssdlite-person'"),
        (["--detections", "detic:x.pth", "--detector-weights", "y.pth"], "its name says which weights"),
        (["--detections", "detic:x.pth"], "no checkpoint at"),
        (["--detections", "hf:/nowhere/detr"], "there is no folder there"),
        (["--detections", "hf"], "say which one: hf:MODEL"),
        (["--detections", "det.txt", "--classes", "7"], "has no class '7'; it knows 2, 5"),
        (["--detections", "det.txt", "--set", "detector.nms=1"], "unknown key 'nms'; did you mean 'nms_iou'"),
        (["--detections", "det.txt", "--set", "detector.nms_iou=2"], "nms_iou: Input should be less than or equal to"),
        (["--detections", "masa", "--classes", "person"], "has no class 'person'; it knows object"),
        ([*SSD, "--detector-weights", "none", "--classes", "dgo"],
         "has no class 'dgo'; did you mean 'dog'"),
        (["--detections", "det.txt", "--text-weights", "clip.pt"], "text_weights"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(
    folder: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job(*arguments) == 2
    assert said in " ".join(capsys.readouterr().err.split())
