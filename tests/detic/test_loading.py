"""Checkpoints: what may be absent or is left out, what is refused and how it is said, and whose they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.detic.rebuild import SMALL, noise_image, read_manifest, small_network
from trackmill.models import detic
from trackmill.models.detic import loading, recognising
from trackmill.models.detic.detector import DeticDetector
from trackmill.models.detic.lvis_names import LVIS_NAMES
from trackmill.models.detic.mmdet_names import to_mmdet
from trackmill.models.detic.model import Detic
from trackmill.models.detic.settings import VARIANTS
from trackmill.models.detic.vocabulary import Vocabulary
from trackmill.models.registry import find_detector
from trackmill.models.weights.checkpoint import Checkpoint

IMAGE = noise_image(60, 90)
ZS = "roi_heads.box_predictor.{}.cls_score.zs_weight"


@pytest.fixture(autouse=True)
def _small_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    """`load` takes the small network for `swinb`."""
    monkeypatch.setitem(VARIANTS, "swinb", SMALL)
    monkeypatch.setattr(loading, "EMBEDDING", SMALL.embedding)
    known = recognising.recognise_variant

    def recognise(tensors: Any) -> str | None:
        small = "backbone.bottom_up.patch_embed.proj.weight"
        is_small = small in tensors and len(tensors[small]) == SMALL.width
        return "swinb" if is_small and any("centernet_head" in name for name in tensors) else known(tensors)

    monkeypatch.setattr(loading, "recognise_variant", recognise)


@pytest.fixture
def state() -> dict[str, Tensor]:
    return small_network(4).state_dict()


def vectors(count: int = 4) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, SMALL.embedding)).astype(np.float32)


def boxes(detector: Detic) -> np.ndarray:
    return detector.detect([IMAGE], 0.1, None)[0].boxes


def test_official_files_wrapped_and_bare_give_the_same(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"model": state, "iteration": 7}, tmp_path / "official.pth")
    own = detic.load(tmp_path / "official.pth")
    assert own.names == ("class 0", "class 1", "class 2", "class 3")
    assert len(boxes(own))
    for given in (
        str(tmp_path / "official.pth"),
        state,
        {"model": state},
        {f"module.{k}": v for k, v in state.items()},
    ):
        assert np.array_equal(boxes(detic.load(given)), boxes(own))
    assert np.array_equal(boxes(detic.load(state, variant="swinb")), boxes(own))


@pytest.mark.parametrize("prefix", ["", "detector."])
def test_masas_copy_is_the_same_model(state: dict[str, Tensor], prefix: str) -> None:
    renamed = {prefix + name: values for name, values in to_mmdet(state).items()}
    if prefix:
        renamed["masa_adapter.0.lateral_convs.0.conv.weight"] = torch.zeros(2, 2, 1, 1)
        renamed["rpn_head.rpn_conv.weight"] = torch.zeros(2, 2, 3, 3)
    found = detic.load(renamed)
    assert all(torch.equal(values, state[name]) for name, values in found.network.state_dict().items())
    assert np.array_equal(boxes(found), boxes(detic.load(state)))


def test_what_may_be_absent_or_is_left_out(state: dict[str, Tensor]) -> None:
    wanted = boxes(detic.load(state, vectors()))
    less = {name: each for name, each in state.items() if "relative_position_index" not in name and ZS[-9:] not in name}
    assert np.array_equal(boxes(detic.load(less, vectors())), wanted)
    more = {
        **state,
        ZS.format(0): torch.full((512, 22048), torch.nan),  # replaced anyway
        ZS.format(2): torch.zeros(3),
        **{f"roi_heads.box_predictor.{stage}.freq_weight": torch.zeros(1203) for stage in range(3)},
        "backbone.bottom_up.base.fc.weight": torch.zeros(7),
        "text_encoder.transformer.resblocks.0.ln_1.weight": torch.zeros(512),
    }
    assert np.array_equal(boxes(detic.load(more, vectors())), wanted)


@pytest.mark.parametrize(
    "name",
    [
        "roi_heads.box_predictor.3.freq_weight",
        "roi_heads.box_predictor.0.freq_weights",
        "roi_heads.box_predictor.0.cls_score.bias",
        "backbone.bottom_up.norm0.weight",
        "backbone.bottom_up.num_batches_tracked",  # no batch norm is there
        "text_decoder.weight",
        "backbone.fpn_lateral6.weight",
    ],
)
def test_any_other_entry_is_named(state: dict[str, Tensor], name: str) -> None:
    with pytest.raises(ValueError, match=f"1 unexpected: {name}"):
        detic.load({**state, name: torch.zeros(3)}, vectors())


@pytest.mark.parametrize(
    "name",
    [
        "backbone.bottom_up.norm2.bias",
        "backbone.bottom_up.layers.0.blocks.0.attn.relative_position_bias_table",
        "backbone.top_block.p7.weight",
        "proposal_generator.centernet_head.scales.4.scale",
        "roi_heads.box_predictor.2.cls_score.linear.bias",
        "roi_heads.mask_head.deconv.weight",
    ],
)
def test_an_entry_that_is_missing_is_named(state: dict[str, Tensor], name: str) -> None:
    del state[name]
    with pytest.raises(ValueError, match=f"does not fit Detic small: 1 missing: {name}$"):
        detic.load(state, vectors())


def test_tensors_that_do_not_fit(state: dict[str, Tensor]) -> None:
    odd = dict(state)
    odd["backbone.fpn_output4.bias"] = torch.zeros(9)
    with pytest.raises(ValueError, match=r"of another shape: backbone.fpn_output4.bias \(9,\) instead of \(64,\)"):
        detic.load(odd, vectors())
    odd["backbone.fpn_output4.bias"] = torch.full((64,), torch.nan)
    with pytest.raises(ValueError, match=r"NaN or infinity: backbone.fpn_output4.bias"):
        detic.load(odd, vectors())
    index = "backbone.bottom_up.layers.1.blocks.1.attn.relative_position_index"
    with pytest.raises(ValueError, match=f"numbered in another order: {index}"):
        detic.load({**state, index: state[index].flip(0)}, vectors())


def test_a_path_that_is_misspelt_is_told_before_names_are_encoded(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"detic\.pth"):
        detic.load(tmp_path / "detic.pth", ["person"], text_weights=tmp_path / "clip.pt")


def test_classes_of_the_checkpoint(state: dict[str, Tensor]) -> None:
    without = {name: each for name, each in state.items() if "zs_weight" not in name}
    with pytest.raises(ValueError, match=r"holds no classes .* give a vocabulary"):
        detic.load(without)
    with pytest.raises(ValueError, match=r"all three stages, found \(16, 3\), \(16, 5\)"):
        detic.load({**state, ZS.format(1): torch.zeros(16, 3)})
    with pytest.raises(ValueError, match=r"found \(5, 16\)"):
        detic.load({**state, **{ZS.format(stage): torch.zeros(5, 16) for stage in range(3)}})
    with pytest.raises(ValueError, match="1 missing"):
        detic.load({name: each for name, each in state.items() if name != ZS.format(1)})
    many = torch.nn.functional.normalize(torch.randn(16, 1204), dim=0)
    many[:, -1] = 0
    lvis = detic.load({**state, **{ZS.format(stage): many for stage in range(3)}})
    assert lvis.names == LVIS_NAMES
    assert torch.equal(lvis.network.roi_heads.classifiers[1].zs_weight, many)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["proposal_generator.rpn_head.conv.weight", "roi_heads.res5.0.conv1.weight"], "region proposal network"),
        (["detr.transformer.encoder.layers.0.norm1.weight"], "Deformable DETR"),
        (
            ["backbone.bottom_up.base.layer1.0.conv2.weight", "proposal_generator.centernet_head.agn_hm.bias"],
            "a Detic on a ResNet of another depth",
        ),
        (
            [
                "backbone.bottom_up.base.stages_0.blocks.0.conv_dw.weight",
                "proposal_generator.centernet_head.agn_hm.bias",
            ],
            "a Detic on a ConvNeXt",
        ),
        (
            ["backbone.bottom_up.patch_embed.proj.weight", "proposal_generator.centernet_head.agn_hm.bias"],
            "a Detic on another Swin",
        ),
        (["image_encoder.pos_embed"], "SAM"),
        (["visual.proj", "ln_final.weight"], "CLIP"),
        (["something.weight"], "no Detic recognised in 1 tensors"),
    ],
)
def test_other_checkpoints_are_told_apart(names: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says) as raised:
        detic.load({name: torch.zeros(3, 3) for name in names}, vectors())
    assert "Swin-B or ResNet-50" in str(raised.value)


def test_variants_are_recognised_by_the_official_names() -> None:
    for folder, variant, other in (("detic_r50", "r50", "swinb"), ("detic_swinb", "swinb", "r50")):
        entries = read_manifest(folder)["entries"]
        tensors = {each["name"]: torch.empty(each["shape"], device="meta") for each in entries}
        assert recognising.recognise_variant(tensors) == variant
        assert DeticDetector.recognise(tensors) == "detic"
        assert DeticDetector.recognise(to_mmdet(tensors)) == "detic"
        with pytest.raises(ValueError, match=f"of variant {variant}, not {other}"):
            detic.load(tensors, np.ones((2, 512), np.float32) if other == "r50" else vectors(), variant=other)
    assert DeticDetector.recognise({"image_encoder.pos_embed": torch.zeros(1)}) is None


@torch.no_grad()
def test_the_official_manifests_fit_with_no_name_left_over() -> None:
    from trackmill.models.detic.network import DeticNetwork

    with torch.device("meta"):
        networks = {
            "detic_r50": DeticNetwork(VARIANTS["r50"], 22047),
            "detic_swinb": DeticNetwork(_official_swinb(), 22047),
        }
    for folder, network in networks.items():
        own = {name: list(values.shape) for name, values in network.state_dict().items()}
        stored = {each["name"]: each["shape"] for each in read_manifest(folder)["entries"]}
        ignored = {name for name in stored if ".base.fc." in name or name.endswith("num_batches_tracked")}
        assert own == {name: shape for name, shape in stored.items() if name not in ignored}


def _official_swinb() -> Any:
    from trackmill.models.detic.settings import Architecture

    return Architecture(name="swinb", backbone="swin")


@pytest.mark.parametrize("variant", ["swin", "R50", "", 5])
def test_unknown_variants(state: dict[str, Tensor], variant: Any) -> None:
    with pytest.raises(ValueError, match="no variant of Detic"):
        detic.load(state, vectors(), variant=variant)
    with pytest.raises(ValueError, match="weights: should be a path"):
        detic.load(None, vectors())  # type: ignore[arg-type]


@pytest.mark.parametrize(("folder", "variant"), [("detic_r50", "r50"), ("detic_swinb", "swinb")])
def test_a_variant_is_recognised_without_any_one_tensor(folder: str, variant: str) -> None:
    entries = read_manifest(folder)["entries"]
    tensors = {each["name"]: torch.empty(each["shape"], device="meta") for each in entries}
    for name in tensors:
        assert recognising.recognise_variant({key: each for key, each in tensors.items() if key != name}) == variant
    headless = {key: each for key, each in tensors.items() if key.startswith("backbone.bottom_up.")}
    assert recognising.recognise_variant(headless) is None
    assert loading.checked_variant(Checkpoint(tensors=headless), variant) == variant
    deeper = {**tensors, "backbone.bottom_up.base.layer3.6.conv1.weight": torch.zeros(1)}
    assert recognising.recognise_variant(deeper) is None


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        detic.load(tmp_path / "no.pth", vectors())
    (tmp_path / "page.pth").write_text("<html>")
    with pytest.raises(ValueError, match="web page"):
        detic.load(tmp_path / "page.pth", vectors())


def test_loading_leaves_random_numbers_alone(state: dict[str, Tensor]) -> None:
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    detic.load(state, vectors())
    assert torch.equal(torch.rand(2), wanted)


def test_the_registry_itself_takes_classes_too(state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `trackmill.pipeline.weights`, which reads vocabularies for jobs, classes are not passed over."""
    asked = []

    def read_vocabulary(classes: Any, text_weights: Any) -> Vocabulary:
        asked.append(classes)
        return Vocabulary(vectors(2), ("person", "dog"))

    monkeypatch.setattr("trackmill.pipeline.vocabulary.read_vocabulary", read_vocabulary)
    detector = find_detector("detic", {"classes": "person,dog"}).build(state)
    assert asked == [("person", "dog")] and detector.names == ("person", "dog")
    assert find_detector("detic").build(state).names == detic.load(state).names
