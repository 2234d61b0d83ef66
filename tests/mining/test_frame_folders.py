"""Folders of frames in a data set: begun as single pictures they stay so, and their rate is part of what was made."""

from __future__ import annotations

import pytest

from tests.make_media import make_davis, make_jpeg
from trackmill.pipeline.mining.prepare import prepare_mining
from trackmill.pipeline.mining.settings import mine_config
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
