"""Loading a ScaleTrack: whole files, backbones' files, other people's files, and headers that lie."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import trackmill.models.masa
from trackmill.models import scaletrack
from trackmill.models.backbones.dinov2 import DinoV2
from trackmill.models.backbones.lite0 import imagenet_lite0
from trackmill.models.backbones.multilevel import build_backbone
from trackmill.models.registry import recognise
from trackmill.models.scaletrack.metadata import metadata_of, shapes_of
from trackmill.models.scaletrack.model import ScaleTrack
from trackmill.models.scaletrack.variants import VARIANTS, Variant
from trackmill.models.weights.read import read_checkpoint

CHANGED = replace(VARIANTS["scaletrack_lite0"], window=2, decoder_layers=1, levels=(0, 2), side=96)


@pytest.fixture(scope="module")
def model() -> ScaleTrack:
    return scaletrack.load(CHANGED, seed=3)


def saved(model: ScaleTrack, folder: Path, **header: Any) -> str:
    """A file as training and export write it."""
    path = folder / "weights.safetensors"
    metadata = metadata_of(model.variant)
    save_file({name: values.contiguous() for name, values in model.state_dict().items()}, path, metadata)
    return str(path)


def same(model: ScaleTrack, other: ScaleTrack) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(values, theirs[name]) for name, values in model.state_dict().items())


def test_a_file_of_a_changed_variant_loads_by_itself(model: ScaleTrack, tmp_path: Path) -> None:
    path = saved(model, tmp_path)
    found = scaletrack.load("scaletrack_lite0", path, seed=9)
    assert found.variant == CHANGED and same(found, model) and not found.training
    assert recognise(read_checkpoint(path)) == "scaletrack_lite0"
    frames, boxes = torch.rand(2, 3, 60, 80), [torch.tensor([[5.0, 5.0, 40.0, 50.0]])] * 2
    assert torch.equal(found(frames, boxes)[1], model(frames, boxes)[1])


def test_a_variant_of_ones_own_loads_by_its_name(tmp_path: Path) -> None:
    own = replace(CHANGED, name="mine")
    path = saved(scaletrack.load(own), tmp_path)
    assert scaletrack.load("mine", path).variant == own
    with pytest.raises(ValueError, match="these weights look like mine, not scaletrack_lite0: load them as mine"):
        scaletrack.load("scaletrack_lite0", path)


def test_other_settings_than_the_files_are_told(
    model: ScaleTrack, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "trackmill"):
        found = scaletrack.load(replace(CHANGED, side=64), saved(model, tmp_path))
    assert found.variant.side == 64
    assert caplog.messages == [
        f"{tmp_path}/weights.safetensors: trained with other settings of scaletrack_lite0: side = 96, now 64"
    ]


def test_the_same_seed_gives_the_same_weights_and_leaves_the_generator_alone(model: ScaleTrack) -> None:
    before = torch.get_rng_state()
    assert same(scaletrack.load(CHANGED, seed=3), model)
    assert torch.equal(torch.get_rng_state(), before)
    assert not same(scaletrack.load(CHANGED, seed=4), model)


def test_unknown_names_are_told_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"there is no variant 'scaletrak_s'; .*scaletrack_s"):
        scaletrack.load("scaletrak_s")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"window": 10**9}, "says window = 1000000000, which is more than 65536"),
        ({"decoder_layers": 65}, "says decoder_layers = 65, which is more than 64"),
        ({"windo": 3}, "made by another version of trackmill: its variant has the field 'windo'"),
        ({"window": "many"}, "its header is not one of ours: window"),
        ({"heads": 3}, "its header is not one of ours: .*channels must be a multiple of heads"),
        ({"band_layout": {"bands": 10**9}}, "says bands = 1000000000"),
        ({"band_layout": {"band": 1}}, "its variant has the field 'band'"),
        ({"backbone": "dinov4"}, "its header is not one of ours: no backbone is called 'dinov4'"),
        ({"levels": [7]}, "its header is not one of ours: .*levels has 7"),
        ({"channels": 60_000, "norm_groups": 1}, "does not fit scaletrack_lite0: .*of another shape"),
        ([], "should name the fields of scaletrack_lite0"),
    ],
)
def test_headers_are_checked_before_anything_large_is_made(model: ScaleTrack, changes: Any, words: str) -> None:
    from trackmill.models.weights.checkpoint import Checkpoint

    metadata = {"variant": "scaletrack_lite0", "fields": changes}
    checkpoint = Checkpoint(tensors=dict(model.state_dict()), metadata=metadata, where="file.safetensors")
    with pytest.raises(ValueError, match=f"^file.safetensors: .*{words}"):
        scaletrack.load("scaletrack_lite0", checkpoint)


def broken(model: ScaleTrack, kind: str) -> dict[str, Tensor]:
    state = {name: values.clone() for name, values in model.state_dict().items()}
    name = next(each for each in state if each.startswith("decoder."))
    match kind:
        case "missing":
            del state[name]
        case "unexpected":
            state["decoder.more"] = torch.zeros(1)
        case "of another shape":
            state[name] = torch.zeros(1, 2, 3, 4, 5)
        case "with NaN or infinity":
            state[name].view(-1)[0] = torch.nan
    return state


@pytest.mark.parametrize("kind", ["missing", "unexpected", "of another shape", "with NaN or infinity"])
def test_tensors_that_are_wrong_are_named(model: ScaleTrack, kind: str) -> None:
    with pytest.raises(ValueError, match=rf"the weights: .*1 {kind}: decoder\.") as error:
        scaletrack.load(CHANGED, broken(model, kind))
    assert "\n" not in str(error.value)


def test_a_backbones_file_alone_is_taken_and_said(caplog: pytest.LogCaptureFixture) -> None:
    official = imagenet_lite0()
    with caplog.at_level(logging.WARNING, "trackmill"):
        found = scaletrack.load(CHANGED, official, seed=3)
    assert caplog.messages == [
        "the weights: these are weights of the backbone alone (EfficientNet-Lite0): "
        "all else of scaletrack_lite0 is fresh"
    ]
    caplog.clear()
    assert same(scaletrack.load(CHANGED, "imagenet", seed=3), found)
    assert caplog.messages  # said of the word too
    caplog.clear()
    assert same(scaletrack.load(CHANGED, backbone_weights=official, seed=3), found)
    assert not caplog.messages
    whole = found.state_dict()
    assert same(scaletrack.load(CHANGED, backbone_weights=whole, seed=3), found)
    with pytest.raises(ValueError, match="holds its backbone already"):
        scaletrack.load(CHANGED, whole, backbone_weights="imagenet")


def dinov2(registers: int = 0) -> dict[str, Tensor]:
    with torch.device("meta"):
        state = DinoV2(384, 12, 6, registers=registers).state_dict()
    return {name: torch.full(values.shape, 0.01) for name, values in state.items()}


def test_a_sister_of_the_backbone_takes_its_place(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "trackmill"):
        found = scaletrack.load("scaletrack_s", dinov2(4))
    assert found.variant.backbone == "dinov2_vits14_reg4" == found.backbone.name
    assert "this is DINOv2 vits14 with registers: scaletrack_s stands on it, in place of dinov2_vits14" in caplog.text
    # What is exported of it loads by the name that it has.
    assert '"backbone": "dinov2_vits14_reg4"' in metadata_of(found.variant)["trackmill"]
    with pytest.raises(ValueError, match=r'with registers; .* or set its backbone to "dinov2_vits14_reg4"'):
        scaletrack.load(VARIANTS["scaletrack_s"], dinov2(4))


@pytest.mark.parametrize(
    ("variant", "tensors", "words"),
    [
        ("scaletrack_l", dinov2, "this is DINOv2 vits14; scaletrack_l stands on .*; it goes with scaletrack_s"),
        ("scaletrack_r50", dinov2, "scaletrack_r50 stands on resnet50 and takes torchvision's or timm's ResNet-50"),
        (
            "scaletrack_s",
            lambda: {"a": torch.zeros(1)},
            r"no backbone known in 1 tensors \(a, ...\); scaletrack_s",
        ),
        (
            "scaletrack_s",
            lambda: trackmill.models.masa.load("masa_lite0").state_dict(),
            "these weights look like masa_lite0, not scaletrack_s: load them as masa_lite0",
        ),
    ],
)
def test_files_of_others_are_told_by_what_they_are(variant: str, tensors: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        scaletrack.load(variant, tensors())


def test_words_of_other_backbones_are_refused() -> None:
    with pytest.raises(ValueError, match='"packaged" is for the backbone ssdlite_mobilenet; scaletrack_lite0'):
        scaletrack.load(CHANGED, "packaged")


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_is_told_by_its_tensors(variant: Variant) -> None:
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes_of(variant).items()}
    # The one on Detic has the tensors of the one on Swin-B; only the header tells them apart.
    assert recognise(tensors) == variant.name.replace("unified_detic", "swin_b")
    assert recognise({name: tensors[name] for name in list(tensors)[:-1]}) is not None


def test_official_backbones_are_nobodys_model() -> None:
    assert recognise(build_backbone("lite0").network.state_dict()) is None and recognise(dinov2()) is None
