"""An end-to-end tracker of ours, from files and in programs: what it writes, and what does not go together with it.

Its weights are drawn: what it finds is by chance, and lies where nobody is.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from safetensors.torch import save_file  # noqa: E402

from tests.ipmot.drawn import SMALL, small_model  # noqa: E402
from tests.tracking.make_tracking import make_frame, square_boxes, write_frames, write_mot_detections  # noqa: E402
from trackmill.jobs import evaluate, track  # noqa: E402
from trackmill.models import masa  # noqa: E402
from trackmill.models.ipmot.metadata import metadata_of  # noqa: E402
from trackmill.models.ipmot.video_model import IpMotTracker  # noqa: E402
from trackmill.models.masa.variants import metadata_of as masa_metadata  # noqa: E402
from trackmill.pipeline.formats.mot_text import parse_mot_text  # noqa: E402
from trackmill.pipeline.tracking.api import VideoTracker  # noqa: E402

SEED, NUM_FRAMES = 3, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, and the files that somebody might give."""
    root = tmp_path_factory.mktemp("ipmot")
    write_frames(root / "seq" / "img1", NUM_FRAMES)
    write_mot_detections(root / "det.txt", NUM_FRAMES)
    tensors = small_model(seed=SEED).state_dict()
    save_file(tensors, root / "small.safetensors", metadata_of(SMALL))
    save_file(
        {n: each for n, each in tensors.items() if "embedding" not in n}, root / "bare.safetensors", metadata_of(SMALL)
    )
    other = masa.load("masa_lite0")
    save_file(other.state_dict(), root / "masa.safetensors", masa_metadata(other.variant))
    (root / "text.pth").write_text("no weights\n")
    coco = {"class_embed.0.weight": torch.zeros(91, 256), "transformer.level_embed": torch.zeros(4, 256)}
    torch.save({"model": coco}, root / "coco.pth")
    return root


def job(folder: Path, output: Path, *arguments: str, model: str = "ip_mot_tiny") -> int:
    line = ["--video", str(folder / "seq"), "--output", str(output), "--device", "cpu", "--model", model]
    return track.main([*line, *(str(folder / each) if (folder / each).is_file() else each for each in arguments)])


def test_every_output_without_detections(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--weights", "small.safetensors", "--batch", "3")
    assert job(folder, tmp_path, *options, "--format", "mot", "coco", "parquet", "--save-video") == 0
    printed = capsys.readouterr()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seq.json", "seq.mp4", "seq.parquet", "seq.txt"]
    for stage in ("decode ", "resize ", "encode ", "decode boxes ", "update ", "write "):
        assert stage in printed.out
    assert "people are found" not in printed.err and "chance" not in printed.err
    rows = parse_mot_text((tmp_path / "seq.txt").read_bytes(), "seq.txt")
    content = json.loads((tmp_path / "seq.json").read_text())
    assert content["categories"] == [{"id": 1, "name": "person"}]
    assert len(rows) == len(content["annotations"]) > NUM_FRAMES
    assert f"{len(rows)} of them in {len(set(rows.ids.tolist()))} tracks" in printed.out
    # The same by hand, frame by frame, without the head that only training needs.
    tracker = VideoTracker("ip_mot_tiny", str(folder / "bare.safetensors"), device="cpu")
    for step in range(NUM_FRAMES):
        found = tracker.update(make_frame(step))
        of_frame = rows.frames == step + 1
        assert rows.ids[of_frame].tolist() == found.ids.tolist()
        np.testing.assert_allclose(rows.boxes[of_frame], found.objects.boxes, atol=2e-3)
    assert tracker.num_tracks == len(set(rows.ids.tolist()))


def test_settings_reach_it(folder: Path, tmp_path: Path) -> None:
    job(folder, tmp_path, "--weights", "small.safetensors", "--set", "model.score_threshold=1.0")
    assert (tmp_path / "seq.txt").read_text() == "", "nobody is that sure"
    tracker = VideoTracker("ip_mot_tiny", str(folder / "small.safetensors"), device="cpu", max_tracks=2, bgr=True)
    assert isinstance(tracker.model, IpMotTracker)
    assert tracker.model.stream.settings.max_tracks == 2
    assert tracker.model.stream.settings.miss_tolerance == SMALL.miss_tolerance, "as the file says"
    assert len(tracker.update(make_frame(0)[:, :, ::-1])) <= 2


def test_random_weights_are_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert job(folder, tmp_path, "--set", "model.short_side=64", "--set", "model.long_side=96") == 0
    assert "no --weights, so the model's are random: what it finds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--detections", "det.txt"], "--detections: ip_mot_tiny is an end-to-end tracker"),
        (["--detections", "masa"], "--detections: ip_mot_tiny is an end-to-end tracker"),
        (["--masks"], "--masks: ip_mot_tiny is an end-to-end tracker"),
        (["--tracker", "tao"], "--tracker: ip_mot_tiny is an end-to-end tracker"),
        (["--min-score", "0.5"], "--min-score: ip_mot_tiny is an end-to-end tracker"),
        (["--classes", "person"], "--classes: goes with a detector"),
        (["--detector-weights", "small.safetensors"], "--detector-weights: goes with a detector"),
        (["--set", "size.long_side=64"], "--set size: ip_mot_tiny is an end-to-end tracker"),
        (["--set", "tracker.fps=9"], "--set tracker: ip_mot_tiny is an end-to-end tracker"),
        (["--set", "detector.min_score=0.5"], "--set detector: ip_mot_tiny is an end-to-end tracker"),
        (["--set", "model.miss_tolerence=9"], "did you mean 'miss_tolerance'"),
        (["--set", "model.short_side=9000"], "must not be below short_side (9000)"),
        (["--weights", "masa.safetensors"], "these weights look like masa_lite0, not ip_mot_tiny"),
        (["--weights", "text.pth"], "text.pth: not loaded, because it is damaged or no checkpoint"),
        (["--weights", "coco.pth"], "coco.pth: "),
        (["--weights", "det.txt"], "det.txt: not loaded"),
    ],
)
def test_what_does_not_go_together(
    folder: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job(folder, tmp_path, *arguments) == 2
    printed = capsys.readouterr().err
    assert message in printed and "Traceback" not in printed
    assert not list(tmp_path.iterdir())


def test_its_weights_under_another_name(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for model in ("ip_mot", "masa_lite0"):
        assert job(folder, tmp_path, "--weights", "small.safetensors", "--detections", "det.txt", model=model) == 2
    assert job(folder, tmp_path, "--weights", "small.safetensors", model="ip_mot_star") == 2
    printed = capsys.readouterr().err
    assert "these weights look like ip_mot_tiny, not masa_lite0" in printed
    assert "these weights look like ip_mot_tiny, not ip_mot_star" in printed


def test_inside_a_program_boxes_are_not_taken(folder: Path) -> None:
    tracker = VideoTracker(IpMotTracker(small_model(seed=SEED)))
    image = make_frame(0)
    image.flags.writeable = False  # as np.asarray gives a picture of Pillow
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = tracker.update(image)
    for given in (square_boxes(0), []):
        with pytest.raises(ValueError, match="detections: objects are found here already"):
            tracker.update(make_frame(1), given)
    with pytest.raises(AttributeError, match="IpMotTracker is an end-to-end tracker"):
        _ = tracker.tracker
    for keywords in ({"tracker": "tao"}, {"detections": "masa"}):
        with pytest.raises(ValueError, match="ip_mot_tiny is an end-to-end tracker"):
            VideoTracker("ip_mot_tiny", **keywords)  # type: ignore[arg-type]
    tracker.reset()
    assert tracker.update(make_frame(0)).ids.tolist() == first.ids.tolist()


def test_the_association_benchmark_says_what_to_do(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "seq" / "gt").mkdir(exist_ok=True)
    (folder / "seq" / "gt" / "gt.txt").write_text("1,1,4,5,12,12,1,1,1\n2,1,7,5,12,12,1,1,1\n")
    line = ["--benchmark", "association", "--gt", str(folder), "--embeddings", "ip_mot"]
    assert evaluate.main(line) == 2
    assert "ip_mot has no embed(images, boxes): an end-to-end tracker" in capsys.readouterr().err
