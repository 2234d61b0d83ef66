"""The tracking job from the command line: every output, every exit code, every mistake as one clear line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")

import av
import pyarrow.parquet

from tests.make_media import make_video
from tests.shared_data import DATA, needs_data
from tests.tracking.make_tracking import square_boxes, write_frames, write_mot_detections
from trackmill.jobs import evaluate
from trackmill.jobs.track import main
from trackmill.pipeline.formats.mot_text import parse_mot_text

MOT15 = DATA / "mot15"
SMALL = ("--model", "masa_lite0", "--set", "size.long_side=64", "--device", "cpu")


@pytest.fixture
def sequence(tmp_path: Path) -> Path:
    write_frames(tmp_path / "seq" / "img1", 5)
    write_mot_detections(tmp_path / "seq" / "det" / "det.txt", 5)
    return tmp_path / "seq"


def track(*arguments: object) -> int:
    return main([*map(str, arguments), *SMALL])


def of_sequence(sequence: Path, *arguments: object) -> int:
    det = sequence / "det" / "det.txt"
    return track("--video", sequence, "--detections", det, "--output", sequence.parent / "out", *arguments)


def test_every_output(sequence: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert of_sequence(sequence, "--format", "mot", "coco", "parquet", "--save-video", "--batch", 2) == 0
    output = sequence.parent / "out"
    assert sorted(path.name for path in output.iterdir()) == ["seq.json", "seq.mp4", "seq.parquet", "seq.txt"]
    rows = parse_mot_text((output / "seq.txt").read_bytes(), "seq.txt")
    assert sorted(rows.boxes[rows.frames == 1].tolist()) == sorted(square_boxes(0).tolist())
    content = json.loads((output / "seq.json").read_text())
    table = pyarrow.parquet.read_table(output / "seq.parquet")
    assert len(rows) == len(content["annotations"]) == table.num_rows == 15
    assert rows.ids.tolist() == [row["track_id"] for row in content["annotations"]] == table.column("id").to_pylist()
    with av.open(str(output / "seq.mp4")) as container:
        assert len(list(container.decode(video=0))) == 5
    printed = capsys.readouterr()
    assert "seq: 5 frames, 15 detections, 15 of them in" in printed.out
    for stage in ("frames/s", "decode", "detect", "embed", "associate", "seq.mp4"):
        assert stage in printed.out
    assert "identities are by chance" in printed.err, "random weights are told"


def test_the_same_twice(sequence: Path) -> None:
    texts = []
    for batch in (1, 4):
        assert of_sequence(sequence, "--batch", batch) == 0
        texts.append((sequence.parent / "out" / "seq.txt").read_text())
    assert texts[0] == texts[1]


@pytest.mark.parametrize("first", [0, 100])
def test_pictures_from_another_number_get_the_boxes_of_their_place(
    sequence: Path, capsys: pytest.CaptureFixture[str], first: int
) -> None:
    assert of_sequence(sequence) == 0
    wanted = (sequence.parent / "out" / "seq.txt").read_bytes()
    for path in sorted((sequence / "img1").iterdir(), reverse=first > 0):
        path.rename(path.with_name(f"{int(path.stem) - 1 + first:06d}{path.suffix}"))
    capsys.readouterr()
    assert of_sequence(sequence) == 0
    assert (sequence.parent / "out" / "seq.txt").read_bytes() == wanted
    assert f"begin with {first:06d}" in capsys.readouterr().err
    write_mot_detections(sequence / "det" / "det.txt", 5, first=50)
    if first:
        assert of_sequence(sequence) == 2
        assert "pictures are numbered 100 to 104 and rows say frames 50 to 54" in capsys.readouterr().err


def test_own_proposals(sequence: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--set", "proposals.max_boxes=4", "--set", "proposals.min_score=0.0", "--tracker", "tao-benchmark")
    output = sequence.parent / "out"
    assert track("--video", sequence, "--detections", "masa", "--output", output, *options) == 0
    rows = parse_mot_text((output / "seq.txt").read_bytes(), "seq.txt")
    assert 0 < len(rows) <= 5 * 4
    assert (rows.boxes[:, 2] <= 100 + 1e-3).all()
    assert "masa_lite0: its proposal head was never trained" in capsys.readouterr().err


def test_torchvision_without_weights(sequence: Path) -> None:
    options = ["--detections", "torchvision:ssdlite320_mobilenet_v3_large", "--detector-weights", "none"]
    options += ["--set", "detector.detections_per_img=3", "--min-score", "0", "--tracker", "tao-benchmark"]
    assert track("--video", sequence, "--output", sequence.parent / "out", "--format", "coco", *options) == 0
    content = json.loads((sequence.parent / "out" / "seq.json").read_text())
    assert content["categories"][1] == {"id": 1, "name": "person"}
    assert len(content["annotations"]) > 0


def test_ids_of_a_data_set(sequence: Path) -> None:
    images = [
        {"id": 70 - i, "video_id": 4, "frame_index": 9 + i, "file_name": f"set/seq/{i + 1:06d}.png"} for i in range(4)
    ]
    content = {"videos": [{"id": 4, "name": "set/seq"}], "images": images}
    (sequence.parent / "gt.json").write_text(json.dumps(content))
    assert of_sequence(sequence, "--format", "tao", "--images", sequence.parent / "gt.json") == 0
    rows = json.loads((sequence.parent / "out" / "seq.json").read_text())
    assert [row["image_id"] for row in rows] == [image for image in (70, 69, 68, 67) for _ in range(3)]


def test_a_truncated_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_video(tmp_path / "clip.mp4", 30, faststart=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    det = write_mot_detections(tmp_path / "det.txt", 30)
    assert track("--video", path, "--detections", det, "--output", tmp_path / "out") == 3
    printed = capsys.readouterr()
    assert "clip.mp4 ends early" in printed.err
    assert "of 30 frames could not be read" in printed.err
    assert "detections in the file are of frames that were not read" in printed.err
    rows = parse_mot_text((tmp_path / "out" / "clip.txt").read_bytes(), "clip.txt")
    assert 0 < rows.frames.max() < 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "tracker.match_score_th=0.6"], "match_score_thr"),
        (["--set", "tracker.match_score_thr"], "should be KEY=VALUE"),
        (["--set", "size.longside=3"], "long_side"),
        (["--set", "size.long_side=many"], "size.long_side"),
        (["--model", "masa_r5"], "did you mean 'masa_r50'?"),
        (["--weights", "no/such/file.pth"], "no/such/file.pth"),
        (["--detections", "no/such/det.txt"], "no/such/det.txt"),
        (["--detections", "torchvision:yolo"], "torchvision has none of that name"),
        (["--masks"], "masa_sam_vitb"),
        (["--device", "cuda:77"], "device 'cuda:77'"),
        (["--video", "no/such/video.mp4"], "no/such/video.mp4"),
        (["--output", "pipe:touch pwned"], "shell command"),
        (["--format", "coco", "tao"], "both write NAME.json"),
        (["--name", "a/b"], "holds no slash"),
    ],
)
def test_mistakes_are_one_clear_line(
    sequence: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    det = sequence / "det" / "det.txt"
    fine = ["--video", sequence, "--detections", det, "--output", sequence.parent / "out"]
    assert main([*map(str, fine), *SMALL, *arguments]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("error: ")
    assert not (sequence.parent / "out").exists() or not list((sequence.parent / "out").iterdir())


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("/proc/tracks", [], "nothing can be made in /proc; give a folder that you may write to"),
        ("/dev/null", [], "/dev/null is a file; give a folder"),
        ("{here}/file.txt", [], "file.txt is a file; give a folder, which need not exist"),
        ("{here}/file.txt/out", [], "file.txt is a file; give a folder"),
        ("{here}/taken", [], "seq.txt is a folder, a file of that name is to be written"),
        ("{here}/taken", ["--format", "coco", "--save-video"], "seq.mp4 is a folder"),
        ("{here}/" + "n" * 300, [], "the name is too long"),
        ("{here}/out", ["--name", "n" * 300], "304 bytes are too long for a file's name"),
    ],
)
def test_an_output_that_cannot_be_is_told_before_the_work(
    sequence: Path, output: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    here = sequence.parent
    (here / "file.txt").touch()
    for name in ("seq.txt", "seq.mp4"):
        (here / "taken" / name).mkdir(parents=True)
    det = sequence / "det" / "det.txt"
    arguments = ["--video", sequence, "--detections", det, "--output", output.format(here=here), *options]
    assert track(*arguments, "--weights", "no/such/file.pth") == 2, "weights are looked for later"
    printed = capsys.readouterr()
    assert message in printed.err and ("--output" in printed.err or "--name" in options)
    assert "Errno" not in printed.err and len(printed.err.splitlines()) == 1
    assert sorted(path.name for path in here.iterdir()) == ["file.txt", "seq", "taken"]


def test_colons_and_spaces_in_paths(sequence: Path, tmp_path: Path) -> None:
    moved = sequence.rename(tmp_path / "a::b c")
    det = moved / "det" / "det.txt"
    output = tmp_path / "out::x"
    assert track("--video", moved, "--detections", det, "--output", output, "--save-video") == 0
    assert sorted(path.name for path in output.iterdir()) == ["a::b c.mp4", "a::b c.txt"]
    clip = make_video(tmp_path / "v::1.mp4", 5)
    assert track("--video", clip, "--detections", det, "--output", output) == 0
    assert (output / "v::1.txt").exists()


def test_a_broken_detection_is_told_before_the_model_is_loaded(
    sequence: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    det = sequence / "det" / "det.txt"
    det.write_text(det.read_text() + "5,-1,1,1,5,5,nan\n")
    assert of_sequence(sequence, "--weights", "no/such/file.pth") == 2
    assert "det.txt: line 16" in capsys.readouterr().err


@pytest.mark.slow
@needs_data("mot15")
def test_a_real_sequence_and_its_evaluation(tmp_path: Path) -> None:
    """Untrained adapter on ImageNet features: far from the state of the art, and far above chance."""
    folder = MOT15 / "TUD-Stadtmitte"
    options = ["--model", "masa_lite0", "--weights", "imagenet", "--set", "size.long_side=128"]
    options += ["--detections", str(folder / "det" / "det.txt"), "--output", str(tmp_path), "--min-score", "0.5"]
    assert main(["--video", str(folder), *options]) == 0
    files = ["--gt", str(MOT15), "--results", str(tmp_path), "--sequences", folder.name]
    assert evaluate.main(["--benchmark", "mot15", *files, "--out", str(tmp_path / "report.json")]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["metrics"]["DetA"] > 40
    assert report["metrics"]["AssA"] > 10
