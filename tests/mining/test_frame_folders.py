"""Folders of frames in a data set: begun as single pictures they stay so, and their rate is part of what was made."""

from __future__ import annotations

import pytest

from tests.make_media import make_davis, make_jpeg
from trackmill.pipeline.mining.prepare import prepare_mining
from trackmill.pipeline.mining.settings import mine_config
from trackmill.pipeline.sources import open_source
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.schemas.config import ConfigError


def prepare(source: str, inputs: list, output, **more):
    return prepare_mining(mine_config({"source": source, **more}, "test"), list(map(str, inputs)), str(output))


def test_a_data_set_begun_with_frames_as_pictures_goes_on_with_the_same_items(tmp_path):
    make_davis(tmp_path / "raw", num_frames=9)
    begun = prepare("images", [tmp_path / "raw"], tmp_path / "out").plan
    make_jpeg(tmp_path / "raw" / "another.jpg")
    plan = prepare("auto", [tmp_path / "raw"], tmp_path / "out").plan
    assert begun.num_items == 18 and plan.num_items == 19, "nothing twice, and the new picture"
    assert plan.sources() == ["images"]
    assert plan.items(0, 18) == begun.items(0, 18)


def test_the_rate_of_frames_is_part_of_the_fingerprint_where_it_is_not_the_usual(tmp_path):
    make_davis(tmp_path / "raw")
    usual = prepare("frames", [tmp_path / "raw"], tmp_path / "a")
    said = prepare("frames", [tmp_path / "raw"], tmp_path / "b", source_settings={"fps": 30})
    other = prepare("auto", [tmp_path / "raw"], tmp_path / "c", source_settings={"fps": 24})
    assert usual.fingerprint == said.fingerprint != other.fingerprint
    assert '"fps":24.0' in other.plan.items(0, 1)[0].details
    with pytest.raises(ConfigError, match=r"unknown key 'source_settings\.rate'"):
        prepare("frames", [tmp_path / "raw"], tmp_path / "d", source_settings={"rate": 24})


def test_that_holds_under_another_path_too(tmp_path):
    make_davis(tmp_path / "raw", num_frames=9)
    begun = prepare("images", [tmp_path / "raw"], tmp_path / "out").plan
    (tmp_path / "link").symlink_to(tmp_path / "raw")
    assert prepare("auto", [tmp_path / "link"], tmp_path / "out").plan.num_items == begun.num_items
    (tmp_path / "link").unlink()
    (tmp_path / "raw").rename(tmp_path / "moved")
    plan = prepare("auto", [tmp_path / "moved"], tmp_path / "out").plan
    assert plan.sources() == ["images"]


def test_a_folder_of_frames_that_grew_gets_clips_for_what_is_new(tmp_path, caplog):
    """Two videos share the folder; only one of them grew."""
    for name in ("a", "b"):
        make_davis(tmp_path / name, num_frames=12)
        for path in sorted((tmp_path / name / "JPEGImages" / "480p" / "bear").iterdir()):
            (tmp_path / "raw").mkdir(exist_ok=True)
            path.rename(tmp_path / "raw" / f"{name}_{path.name}")
    later = sorted((tmp_path / "raw").glob("b_*"))[7:]
    for path in later:
        path.rename(tmp_path / path.name)
    more = {"read": {"frames_per_clip": 4, "label_fps": 30}}
    begun = prepare("frames", [tmp_path / "raw"], tmp_path / "out", **more).plan
    for path in later:
        (tmp_path / path.name).rename(path)
    plan = prepare("frames", [tmp_path / "raw"], tmp_path / "out", **more).plan
    assert begun.num_items == 5 and plan.num_items == 7
    new = plan.items(5, 7)
    assert [item.source_id.rsplit("/", 1)[1] for item in new] == ["b_*.jpg#c002", "b_*.jpg#c003"]
    source = open_source("frames", ReadSettings())
    assert [[frame.index for frame in source.read(item).frames] for item in new] == [[7, 8, 9], [10, 11]]
    assert "b_*.jpg: grew since it was planned: 5 frames behind the 7" in caplog.text
