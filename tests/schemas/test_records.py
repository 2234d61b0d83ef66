"""Keys, boxes, settings and the JSON Schemas of records."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from trackmill.schemas.boxes import iou_matrix, nms
from trackmill.schemas.config import ConfigError, Settings, build, merge, parse_toml
from trackmill.schemas.keys import KEY_PATTERN, frame_member, sample_key, shard_name
from trackmill.schemas.sample import json_schemas

ROOT = Path(__file__).resolve().parents[2]


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_name_gives_a_legal_key(name: str, source_id: str) -> None:
    key = sample_key("images", name, source_id)
    assert KEY_PATTERN.match(key)
    assert key == sample_key("images", name, source_id)


def test_equal_names_from_different_places_have_different_keys() -> None:
    assert sample_key("images", "0001", "/a/0001.jpg") != sample_key("images", "0001", "/b/0001.jpg")


def test_member_names_fit_in_a_tar_and_sort_in_time() -> None:
    key = sample_key("sav", "x" * 300, "/" + "y" * 300)
    names = [frame_member(key, position, 120, "clip") for position in range(120)]
    assert names == sorted(names)
    assert max(map(len, names)) <= 100


def test_shard_names() -> None:
    assert shard_name(12) == "part-00000012.tar"
    assert shard_name(12, roll=3) == "part-00000012-03.tar"
    assert shard_name(12, roll=3, retry=1) == "part-00000012-r01-03.tar"


def test_iou_and_nms() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [20, 20, 30, 30], [5, 5, 5, 5]], np.float32)
    iou = iou_matrix(boxes, boxes)
    assert iou[0, 1] == pytest.approx(0.5)
    assert iou[0, 2] == 0
    assert iou[3, 3] == 0, "an empty box overlaps nothing, not even itself"
    assert nms(boxes[:3], np.array([0.5, 0.9, 0.1]), 0.4).tolist() == [1, 2]
    assert nms(boxes[:3], np.array([0.5, 0.5, 0.5]), 0.5).tolist() == [0, 1, 2], "the threshold itself is kept"


class Inner(Settings):
    longest_side: int = Field(4, gt=0)


class Outer(Settings):
    read: Inner = Inner()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[read]\nlongest_sied = 3", r"unknown key 'read.longest_sied'; did you mean 'read.longest_side'\?"),
        ("longest_side = 3", r"unknown key 'longest_side'; did you mean 'read.longest_side'\?"),
        ("[read]\nx = 3", r"unknown key 'read.x'; known keys: read\.longest_side"),
        ("[raed]\nx = 3", r"unknown key 'raed'; did you mean 'read'\?"),  # codespell:ignore
        ("[read]\nlongest_side = 'big'", r"read\.longest_side: .*integer"),
        ("[read]\nlongest_side = 0", r"read\.longest_side: .*greater than 0"),
        ("[read", "not valid TOML"),
    ],
)
def test_wrong_settings_are_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(Outer, parse_toml(text, "run.toml"), "run.toml")


def test_merging_goes_section_by_section() -> None:
    assert merge({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}, "b": 4}) == {"a": {"x": 1, "y": 3}, "b": 4}


def test_json_schemas_are_complete() -> None:
    text = json.dumps(json_schemas())
    for name in ("byte_range", "negatives", "fingerprint", "license", "stride", "time_s", "sha256", "scale"):
        assert f'"{name}"' in text
