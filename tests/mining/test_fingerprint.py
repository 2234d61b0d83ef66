"""The fingerprint: what changes the output is in it, what does not is not, and a change is explained."""

from __future__ import annotations

from typing import Any

import pytest

from trackmill.pipeline.mining.fingerprint import (
    SettingsChanged,
    check_same,
    fingerprint,
    fingerprint_parts,
    keep_choices,
    store_config,
    stored_config,
)
from trackmill.pipeline.mining.settings import mine_config
from trackmill.pipeline.shards.layout import Layout

IMPLEMENTATION = {"backend": "skimage", "scikit-image": "0.26.0"}


def parts(values: dict[str, Any], implementation: dict[str, str] = IMPLEMENTATION) -> dict[str, Any]:
    return fingerprint_parts(mine_config(values, "test"), implementation)


@pytest.mark.parametrize(
    "values",
    [
        {"read": {"longest_side": 512}},  # other pixels
        {"read": {"jpeg_quality": 80}},  # other bytes
        {"read": {"frames_per_clip": 10}},  # other clips
        {"read": {"license": "CC0-1.0"}},  # other records
        {"read": {"max_frames": 1000}},  # other items are quarantined
        {"negatives": {"max_iou": 0.3}},  # other negatives
        {"shards": {"max_bytes": 1000}},  # other shards
        {"graph": {"sigma": 1.2}},  # other proposals
        {"proposer": "annotations"},
    ],
)
def test_what_changes_the_output_changes_the_fingerprint(values: dict[str, Any]) -> None:
    assert fingerprint(parts(values)) != fingerprint(parts({}))


@pytest.mark.parametrize(
    "values",
    [
        {"run": {"actors": 7}},
        {"run": {"executor": "inline"}},
        {"run": {"progress_s": 1.0}},
        {"run": {"recycle_after": 5}},
        {"sam": {"points_per_side": 8}},  # a proposer that is not used
    ],
)
def test_what_does_not_change_it_does_not(values: dict[str, Any]) -> None:
    assert fingerprint(parts(values)) == fingerprint(parts({}))


def test_a_setting_younger_than_data_sets_is_left_out_at_its_default() -> None:
    assert "max_frames" not in parts({})["read"] and "max_pixels" in parts({})["read"]
    assert parts({"read": {"max_frames": 4_000_000}}) == parts({})


def test_another_library_is_another_fingerprint() -> None:
    other = {**IMPLEMENTATION, "scikit-image": "0.27.0"}
    assert fingerprint(parts({}, other)) != fingerprint(parts({}))


def test_a_changed_setting_is_named_with_both_values() -> None:
    layout = Layout("memory://fingerprint")
    assert stored_config(layout) is None
    store_config(layout, mine_config({}, "test"), parts({}), ["/somewhere"])
    stored = stored_config(layout)
    assert stored is not None
    assert stored["inputs"] == ["/somewhere"]
    check_same(layout, stored["parts"], parts({"run": {"actors": 9}}))
    with pytest.raises(SettingsChanged, match=r"read\.longest_side: 1024 -> 512"):
        check_same(layout, stored["parts"], parts({"read": {"longest_side": 512}}))


def test_what_was_chosen_once_stays() -> None:
    """Installing OpenCV between two runs does not change the backend of the second."""
    begun = parts({"graph": {"backend": "skimage"}})
    left_open = mine_config({}, "test").graph
    assert left_open.backend == "auto"
    assert keep_choices(left_open, begun).backend == "skimage"
    named = mine_config({"graph": {"backend": "opencv"}}, "test").graph
    assert keep_choices(named, begun).backend == "opencv", "what the user says is not overruled"
    assert keep_choices(left_open, None) == left_open
