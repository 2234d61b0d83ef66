"""From names to parts: sizes by variant, settings by name, and what cannot go together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from trackmill.models.association import MasaBddTracker, MasaTaoTracker, ScaleTrackTracker
from trackmill.models.device import choose_device
from trackmill.models.masa.variants import VARIANTS
from trackmill.pipeline.tracking.build import model_scaling
from trackmill.pipeline.tracking.settings import PRESETS, SizeSettings, TrackConfig, make_tracker
from trackmill.schemas.config import ConfigError, build


@pytest.mark.parametrize(
    ("model", "asked", "frame", "expected"),
    [
        ("masa_r50", {}, (480, 640), (768, 1024)),
        ("masa_sam_vith", {}, (1080, 1920), (576, 1024)),
        ("masa_detic", {}, (1080, 1920), (750, 1333)),
        ("masa_detic", {}, (480, 640), (800, 1067)),
        ("masa_r50", {"long_side": 640}, (480, 640), (480, 640)),
        ("masa_detic", {"long_side": 640}, (480, 640), (480, 640)),
        ("masa_r50", {"long_side": 1333, "short_side": 800}, (480, 640), (800, 1067)),
        ("masa_r50", {"short_side": 384}, (480, 640), (384, 512)),
    ],
)
def test_sizes(model: str, asked: dict[str, int], frame: tuple[int, int], expected: tuple[int, int]) -> None:
    assert model_scaling(model, SizeSettings(**asked)).size(*frame) == expected


def test_every_variant_has_a_size_that_its_padding_allows() -> None:
    for name, variant in VARIANTS.items():
        size = model_scaling(name, SizeSettings()).size(480, 640)
        assert max(size) <= (variant.input_side or 10_000)


def test_presets_are_the_official_settings() -> None:
    """The hyper-parameters of the released configurations and of the demo."""
    demo, benchmark, bdd = (make_tracker(name).settings for name in ("tao", "tao-benchmark", "bdd"))
    assert (demo.init_score_thr, demo.obj_score_thr, demo.match_score_thr) == (0.1, 0.01, 0.5)
    assert (demo.max_distance, demo.fps, demo.memo_tracklet_frames, demo.memo_momentum) == (100, 30, 10, 0.8)
    assert (benchmark.init_score_thr, benchmark.obj_score_thr, benchmark.match_score_thr) == (1e-4, 1e-4, 0.5)
    assert (benchmark.max_distance, benchmark.fps, benchmark.memo_tracklet_frames) == (-1, 1, 10)
    assert (benchmark.distractor_score_thr, benchmark.distractor_nms_thr) == (0.5, 0.3)
    assert (bdd.init_score_thr, bdd.obj_score_thr, bdd.match_score_thr) == (0.5, 0.3, 0.6)
    assert (bdd.memo_tracklet_frames, bdd.memo_backdrop_frames, bdd.memo_momentum) == (10, 1, 0.8)
    assert (bdd.nms_class_iou_thr, bdd.nms_backdrop_iou_thr, bdd.nms_conf_thr) == (0.7, 0.3, 0.5)
    assert bdd.match_metric == "bisoftmax"
    assert {type(make_tracker(name)) for name in PRESETS} == {MasaTaoTracker, MasaBddTracker, ScaleTrackTracker}


def test_settings_by_section() -> None:
    config = build(TrackConfig, {"tracker": {"fps": 25}, "read": {"max_pixels": 99}, "detector": {"names": ["a"]}}, "x")
    assert config.read.max_pixels == 99
    assert config.detector == {"names": ["a"]}
    assert make_tracker("tao", config.tracker).settings.fps == 25
    with pytest.raises(ConfigError, match="did you mean 'read'"):
        build(TrackConfig, {"reed": {"x": 1}}, "x")


def test_devices() -> None:
    assert choose_device("auto").type in ("cpu", "cuda")
    with pytest.raises(ValueError, match="device 'gpu'"):
        choose_device("gpu")


def test_help_and_settings_need_no_torch() -> None:
    """Mistakes in the command line are told at once, also where torch takes seconds to import or is missing."""
    root = Path(__file__).parents[2]

    def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
        code = (
            "import sys; sys.modules['torch'] = None;"
            "from trackmill.jobs.track import main; sys.exit(main(sys.argv[1:]))"
        )
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)

    assert run(["--help"]).returncode == 0
    done = run(["--video", "tests/tracking", "--detections", "masa", "--output", "out/never"])
    assert done.returncode == 2
    assert "neither pictures nor a video" in done.stderr
    done = run(["--video", "docs/pictures/contact_sheet.jpg", "--detections", "masa", "--output", "out/never"])
    assert done.returncode == 2
    assert 'pip install -e ".[masa]"' in done.stderr
