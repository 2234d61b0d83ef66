"""Weights of the tracker: whole files, MeMOTR's layout, a detector's part, and what does not fit."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.ipmot.small import MINI, small_tracker, small_variant
from trackmill.models.backbones.multilevel import BACKBONES
from trackmill.models.ipmot import load
from trackmill.models.ipmot.metadata import metadata_of, recognise
from trackmill.models.ipmot.model import IpMot
from trackmill.models.ipmot.variants import VARIANTS, Variant

State = Mapping[str, Tensor]

SMALL = small_variant()
MEMOTR = small_variant(
    name="memotr",
    track_update="memotr",
    qbs=False,
    embedding=0,
    sizes={"conventions": "memotr", "separate_first_layers": 1, "hidden": 16, "heads": 2},
)


@pytest.fixture(autouse=True)
def _mini_backbone() -> Iterator[None]:
    with mock.patch.dict(BACKBONES, MINI):
        yield


def memotr_names(state: State) -> dict[str, Tensor]:
    """Our names of the tracker to MeMOTR's."""
    named = {}
    for name, each in state.items():
        name = name.removeprefix("detector.")
        for ours, theirs in {
            "query_update.": "query_updater.",
            "tgt_embed.weight": "det_query_embed",
            "refpoint_embed.weight": "det_anchor",
            "input_proj.": "feature_projs.",
            "backbone.0.body.": "backbone.backbone.backbone.",
        }.items():
            if name.startswith(ours):
                name = theirs + name.removeprefix(ours)
                break
        named[name] = each
        if name.startswith("bbox_embed."):
            named[f"transformer.decoder.{name}"] = each
    return named


def coco_names(state: State) -> dict[str, Tensor]:
    """The detector of ours as a published file of 91 classes, in which people are row 1."""
    named = {}
    for name, each in state.items():
        if not name.startswith("detector."):
            continue
        name = name.removeprefix("detector.")
        if name.startswith("class_embed."):
            rows = torch.full((91, *each.shape[1:]), 7.0)
            rows[1] = each[0]
            each = rows
        named[name] = each
        if name.startswith("bbox_embed."):
            named[f"transformer.decoder.{name}"] = each
    return named


def equal(model: IpMot, state: State, prefix: str = "") -> bool:
    own = model.state_dict()
    return all(torch.equal(each, state[name]) for name, each in own.items() if name.startswith(prefix))


def test_fresh_weights_follow_from_the_seed() -> None:
    first, again, other = load(SMALL), load(SMALL), load(SMALL, seed=1)
    assert not first.training
    assert equal(first, again.state_dict()) and not equal(first, other.state_dict())


def test_a_file_of_ours_loads_by_its_name_with_its_settings(tmp_path: Path) -> None:
    variant = dataclasses.replace(SMALL, name="ip_mot", qbs=False, keep_threshold=0.25)
    state = load(variant, seed=3).state_dict()
    path = tmp_path / "model.safetensors"
    save_file({name: each.contiguous() for name, each in state.items()}, path, metadata=metadata_of(variant))
    model = load("ip_mot", path)
    assert model.variant == variant
    assert equal(model, state)


def test_a_file_of_other_settings_is_loaded_as_asked_with_a_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "model.safetensors"
    save_file(load(SMALL).state_dict(), path, metadata=metadata_of(SMALL))
    asked = dataclasses.replace(SMALL, keep_threshold=0.4)
    assert load(asked, path).variant == asked
    assert "keep_threshold = 0.5, now 0.4" in caplog.text


def test_memotrs_layout() -> None:
    state = load(MEMOTR, seed=3).state_dict()
    theirs = memotr_names(state)
    assert recognise(theirs) == "memotr"
    assert equal(load(MEMOTR, theirs), state)


@pytest.mark.parametrize("how", ["weights", "detector_weights"])
def test_a_coco_detector_gives_its_person_and_the_rest_is_fresh(how: str, caplog: pytest.LogCaptureFixture) -> None:
    state = load(SMALL, seed=3).state_dict()
    with caplog.at_level(logging.WARNING):
        model = load(SMALL, **{how: coco_names(state)})  # type: ignore[arg-type]
    assert equal(model, state, "detector.")
    assert equal(model, load(SMALL).state_dict(), "deduplication.")
    assert ("all else of small is fresh" in caplog.text) == (how == "weights")


def test_a_whole_tracker_gives_its_detector() -> None:
    state = load(SMALL, seed=3).state_dict()
    asked = small_variant(qbs=False)
    assert equal(load(asked, detector_weights=state), state, "detector.")
    theirs = memotr_names(load(MEMOTR, seed=3).state_dict())
    conventions = small_variant(sizes={"conventions": "memotr"})
    assert equal(load(conventions, detector_weights=theirs), load(MEMOTR, seed=3).state_dict(), "detector.")


def without(state: State, name: str) -> dict[str, Tensor]:
    assert name in state
    return {each: values for each, values in state.items() if each != name}


@pytest.mark.parametrize(
    ("variant", "how", "change", "text"),
    [
        ("ip_mott", "ours", None, "no variant 'ip_mott'.*ip_mot"),
        (SMALL, "memotr", None, "look like memotr, not small: load them as memotr"),
        (dataclasses.replace(MEMOTR, detector=SMALL.detector), "memotr", None, 'conventions = "memotr"'),
        (small_variant(sizes={"conventions": "memotr"}), "coco", None, 'conventions = "coco", and small has "memotr"'),
        (SMALL, "ours", "query_update.norm1.weight", "1 missing: query_update.norm1.weight"),
        (SMALL, "coco", "input_proj.0.0.bias", "1 missing: input_proj.0.0.bias"),
        (MEMOTR, "memotr", "query_updater.memory_norm.bias", "1 missing: query_update.memory_norm.bias"),
        (small_variant(sizes={"queries": 13}), "ours", None, r"tgt_embed.weight \(12, 16\) instead of \(13, 16\)"),
        (small_variant("plain"), "coco", None, "query_embed.weight"),
        (small_variant(embedding=0), "ours", None, "unexpected: embedding"),
    ],
)
def test_what_does_not_fit_is_named(variant: str | Variant, how: str, change: str | None, text: str) -> None:
    state: State = load(MEMOTR if how == "memotr" else SMALL).state_dict()
    given = {"ours": dict, "memotr": memotr_names, "coco": coco_names}[how](state)
    if change:
        given = without(given, change)
    with pytest.raises(ValueError, match=text):
        load(variant, given)


def test_neither_numbers_nor_missing_devices() -> None:
    with pytest.raises(ValueError, match="no variant 5"):
        load(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weights: should be a path, a URL or tensors by name, found int"):
        load(SMALL, 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="device 'cuda:77' cannot be used here"):
        load(SMALL, device="cuda:77")


def test_neither_nan_nor_strangers_nor_two_detectors() -> None:
    state = dict(load(SMALL).state_dict())
    with pytest.raises(ValueError, match="give no weights of a detector beside it"):
        load(SMALL, state, detector_weights=coco_names(state))
    with pytest.raises(ValueError, match="no detector known in 1 tensors"):
        load(SMALL, {"layer.weight": torch.zeros(1)})
    state["embedding.bias"] = torch.full_like(state["embedding.bias"], torch.nan)
    with pytest.raises(ValueError, match=r"embedding.bias \(8 of 8 values\)"):
        load(SMALL, state)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"detector": {"hidden": 10**9}}, "hidden = 1000000000"),
        ({"detector": {"form": "triple"}}, "form"),
        ({"detector": {"colour": 1}}, "the field 'colour'"),
        ({"track_update": "guess"}, "track_update"),
    ],
)
def test_headers_are_checked_before_anything_is_built(fields: dict[str, object], text: str, tmp_path: Path) -> None:
    from trackmill.models.weights.metadata import to_header

    path = tmp_path / "model.safetensors"
    save_file(load(SMALL).state_dict(), path, metadata=to_header({"variant": "ip_mot", "fields": fields}))
    with pytest.raises(ValueError, match=text):
        load("ip_mot", path)


def test_published_variants_are_told_apart_by_their_shapes() -> None:
    with torch.device("meta"):
        for name in ("ip_mot", "ip_mot_star"):
            assert recognise(IpMot(VARIANTS[name]).state_dict()) == name
    assert recognise(coco_names(small_tracker().state_dict())) is None


def test_memotrs_update_has_eight_heads() -> None:
    with pytest.raises(ValueError, match=r"detector\.hidden must be a multiple of 8, not 36"):
        small_variant(track_update="memotr", sizes={"hidden": 36, "heads": 4})
