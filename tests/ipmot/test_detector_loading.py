"""Which detector a checkpoint is, by names and shapes, and what is said of one that is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trackmill.models.ipmot import load_detector
from trackmill.models.ipmot.detector import DeformableDetr
from trackmill.models.ipmot.detector_loading import sizes_of
from trackmill.models.ipmot.detector_names import layout_of, to_own_names
from trackmill.models.ipmot.sizes import DetectorSizes
from trackmill.models.weights.checkpoint import Checkpoint
from trackmill.schemas.errors import InputError

SMALL: dict[str, Any] = {
    "hidden": 32, "levels": 2, "encoder_layers": 1, "decoder_layers": 2, "feedforward": 24, "queries": 9, "classes": 4,
}  # fmt: skip

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def states() -> dict[str, State]:
    """Small detectors on a ResNet-50, in our own names: these are the COCO layout without what is there twice."""
    torch.manual_seed(0)
    made = {}
    for name, changes in {
        "dab": {},
        "plain": {"form": "plain", "feedforward": 20},
        "shared": {"form": "plain", "box_refinement": False},
    }.items():
        detector = DeformableDetr(DetectorSizes(**{**SMALL, **changes}))
        with torch.no_grad():
            for parameter in detector.bbox_embed.parameters():
                parameter.copy_(torch.randn(parameter.shape))
        made[name] = detector.state_dict()
    return made


def published(state: State) -> State:
    """With the copies that the published files have."""
    copies = {f"transformer.decoder.{name}": each for name, each in state.items() if name.startswith("bbox_embed.")}
    return {**state, **copies}


def shared_heads(state: State) -> State:
    """As published without refinement: the one head under the number of each layer."""
    heads = {name: each for name, each in state.items() if name.startswith(("class_embed.0.", "bbox_embed.0."))}
    return {**state, **{name.replace("embed.0.", "embed.1."): each for name, each in heads.items()}}


def memotrs(state: State) -> State:
    """As MeMOTR calls them, beside a query update."""
    beginnings = {
        "backbone.0.body.": "backbone.backbone.backbone.",
        "input_proj.": "feature_projs.",
        "tgt_embed.weight": "det_query_embed",
        "refpoint_embed.weight": "det_anchor",
        "query_embed.weight": "det_query_embed",
    }
    renamed = {}
    for name, each in published(state).items():
        old = next((old for old in beginnings if name.startswith(old)), "")
        renamed[beginnings.get(old, "") + name.removeprefix(old)] = each
    return {**renamed, "query_updater.memory_norm.weight": torch.ones(32)}


def test_sizes_follow_from_shapes(states: dict[str, State]) -> None:
    for form, state in (("dab", states["dab"]), ("plain", states["plain"])):
        detector = load_detector({"model": published(state)})
        expected = DetectorSizes(**{**SMALL, "form": form, "feedforward": 24 if form == "dab" else 20})
        assert detector.sizes == expected and not detector.training
        for name, each in detector.state_dict().items():
            torch.testing.assert_close(each, state[name])
    assert load_detector(memotrs(states["dab"]), "memotr").sizes == DetectorSizes(**SMALL, conventions="memotr")
    with_two_heads = load_detector(states["dab"], heads=2).sizes
    assert (with_two_heads.heads, with_two_heads.points) == (2, 16)


def test_files_without_refinement_hold_one_head_many_times(states: dict[str, State], tmp_path: Path) -> None:
    path = tmp_path / "r50_deformable_detr.pth"
    torch.save({"model": shared_heads(states["shared"])}, path)
    detector = load_detector(path)
    assert not detector.sizes.box_refinement and set(detector.state_dict()) == set(states["shared"])
    assert not load_detector(str(path)).sizes.box_refinement
    assert sizes_of(Checkpoint(tensors=published(states["plain"])), "coco").box_refinement
    # The copies may be absent: heads that differ are heads of their own.
    assert sizes_of(Checkpoint(tensors=states["plain"]), "coco").box_refinement


def test_counters_may_be_there_or_not(states: dict[str, State]) -> None:
    assert not any(name.endswith("num_batches_tracked") for name in states["dab"])
    counting = published(states["dab"]) | {"backbone.0.body.bn1.num_batches_tracked": torch.tensor(7)}
    assert set(load_detector(counting).state_dict()) == set(states["dab"])
    assert layout_of(states["dab"]) == "coco" and layout_of(memotrs(states["dab"])) == "memotr"
    assert layout_of(["conv1.weight", "fc.bias"]) is None


def test_one_class_takes_the_row_of_people(states: dict[str, State]) -> None:
    state = dict(states["dab"])
    for name in [name for name in state if name.startswith("class_embed.")]:
        state[name] = torch.arange(91.0).view(91, *(1,) * (state[name].ndim - 1)).expand(91, *state[name].shape[1:])
    own = to_own_names(Checkpoint(tensors=state), DetectorSizes(**{**SMALL, "classes": 1}))
    assert own["class_embed.0.weight"].tolist() == [[1.0] * 32] and own["class_embed.1.bias"].tolist() == [1.0]


def broken(state: State, what: str) -> State:
    changed = published(state)
    match what:
        case "NaN":
            changed["tgt_embed.weight"] = torch.full_like(changed["tgt_embed.weight"], float("nan"))
        case "missing":
            del changed["class_embed.1.bias"]
        case "unexpected":
            changed["transformer.decoder.layers.0.norm4.weight"] = torch.ones(32)
        case "another shape":
            changed["refpoint_embed.weight"] = torch.zeros(9, 3)
        case "copies differ":
            changed["transformer.decoder.bbox_embed.0.layers.0.bias"] = torch.ones(32)
        case "two-stage":
            changed["transformer.enc_output.weight"] = torch.zeros(32, 32)
        case "patterns":
            changed["patterns_embed.weight"] = torch.zeros(3, 32)
        case "ResNet-101":
            changed |= {f"backbone.0.body.layer3.{block}.bn1.bias": torch.zeros(256) for block in range(6, 23)}
        case "DETR":
            changed["transformer.encoder.layers.0.self_attn.in_proj_weight"] = torch.zeros(96, 32)
        case "ResNet-50":
            prefix = "backbone.0.body."
            return {name.removeprefix(prefix): each for name, each in changed.items() if name.startswith(prefix)}
        case "nothing known":
            return {"weight": torch.zeros(3)}
    return changed


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("NaN", "1 with NaN or infinity: tgt_embed.weight"),
        ("missing", "does not fit DAB-Deformable-DETR of 9 queries and 4 classes: 1 missing: class_embed.1.bias"),
        ("unexpected", "1 unexpected: transformer.decoder.layers.0.norm4.weight"),
        ("another shape", r"refpoint_embed.weight \(9, 3\) instead of \(9, 4\)"),
        ("copies differ", "differing from their other copy: transformer.decoder.bbox_embed.0.layers.0.bias"),
        ("two-stage", "a two-stage detector, which is not supported"),
        ("patterns", "a detector with query patterns, which are not supported"),
        ("ResNet-101", "stands on a ResNet-101; detectors are read on ResNet-50"),
        ("DETR", "this is a DETR without deformable attention; what is taken is a DAB-Deformable-DETR"),
        ("ResNet-50", r"this is a backbone alone \(ResNet-50\)"),
        ("nothing known", r"no detector known in 1 tensors \(weight, ...\)"),
    ],
)
def test_what_does_not_fit_is_named(states: dict[str, State], what: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_detector(broken(states["dab"], what))


def test_weights_of_the_other_conventions_are_refused(states: dict[str, State]) -> None:
    with pytest.raises(InputError, match='names are MeMOTR\'s, which go with conventions="memotr", not "coco"'):
        load_detector(memotrs(states["dab"]))
    with pytest.raises(InputError, match='COCO detectors\', which go with conventions="coco", not "memotr"'):
        load_detector(states["dab"], "memotr")
    with pytest.raises(InputError, match="no conventions are called 'memot'; did you mean 'memotr'"):
        load_detector(states["dab"], "memot")  # type: ignore[arg-type]


def test_what_cannot_be_read_is_told(states: dict[str, State], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_detector(tmp_path / "nowhere.pth")
    with pytest.raises(InputError, match="weights: should be a path, a URL or tensors by name, found int"):
        load_detector(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="64 attention weights of a query cannot be those of 3 heads and 2 levels"):
        load_detector(states["dab"], heads=3)
