"""masa_detic with its own detector: one pass of the Swin for boxes and embeddings, of one checkpoint read once.

The networks are small ones of the same build, put where the registry finds the large ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import nms, roi_align

import trackmill.models.detic
import trackmill.models.masa.model
import trackmill.pipeline.tracking.build
import trackmill.pipeline.weights
from tests.masa.rebuild import read_manifest
from trackmill.models.backbones.swin import Swin, SwinDetector
from trackmill.models.detectors.frame_scaling import FrameScaling
from trackmill.models.detic import settings as detic_settings
from trackmill.models.detic.loading import UNUSED, fit_network, official_tensors
from trackmill.models.detic.mmdet_names import to_mmdet, to_official
from trackmill.models.detic.network import DeticNetwork
from trackmill.models.detic.settings import Architecture
from trackmill.models.detic.vocabulary import Vocabulary
from trackmill.models.embedders.scaled import ScaledEmbedder
from trackmill.models.masa.detic_detector import MasaDeticDetector, MasaDeticSettings
from trackmill.models.masa.frame_features import FrameFeatures
from trackmill.models.masa.loading import load_model
from trackmill.models.masa.model import Masa
from trackmill.models.masa.variants import VARIANTS
from trackmill.models.weights.checkpoint import Checkpoint
from trackmill.pipeline.tracking.build import make_video_model
from trackmill.pipeline.tracking.settings import TrackConfig
from trackmill.pipeline.tracking.two_stage import TwoStage

State = dict[str, Tensor]

SIZES: dict[str, Any] = {"width": 16, "depths": (1, 1, 2, 1), "heads": (1, 2, 4, 8)}
SMALL = Architecture(name="swinb", backbone="swin", channels=32, hidden=32, **SIZES)
EMBEDDING = SMALL.embedding
TABLE = "detector.backbone.stages.0.blocks.0.attn.w_msa.relative_position_bias_table"
CLASSES = 5
FULL = dict(detic_settings.VARIANTS)
"""The variants of full size, which the tests put a small one over."""
SCALING = FrameScaling(long_side=160, short_side=96)


class SmallSwinDetector(SwinDetector):
    def __init__(self, window: int) -> None:
        super(SwinDetector, self).__init__()
        self.backbone = Swin(window, **SIZES)


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """masa_detic and Detic's Swin variant, small."""
    variant = replace(
        VARIANTS["masa_detic"],
        in_channels=(32, 64, 128),
        channels=32,
        head_channels=32,
        embed_channels=16,
        fingerprint=(TABLE, (169, 1)),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trackmill.models.masa.model, "SwinDetector", SmallSwinDetector)
        patch.setitem(VARIANTS, "masa_detic", variant)
        patch.setitem(detic_settings.VARIANTS, "swinb", SMALL)
        yield


@pytest.fixture(scope="module")
def official(small: None) -> State:
    """A whole Detic in its own names, whose boxes are some strides wide."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = DeticNetwork(SMALL, CLASSES)
        state = {name: values.clone() for name, values in network.state_dict().items()}
        for name, values in state.items():
            if values.is_floating_point() and values.ndim > 1 and "relative_position" not in name:
                values.copy_(torch.randn(values.shape) / (values.numel() / len(values)) ** 0.5)
        state["proposal_generator.centernet_head.bbox_pred.bias"] += 3
        matrix = torch.nn.functional.normalize(torch.randn(EMBEDDING, CLASSES), dim=0)
    for stage in range(3):
        state[f"roi_heads.box_predictor.{stage}.cls_score.zs_weight"] = torch.nn.functional.pad(matrix, (0, 1))
        state[f"roi_heads.box_predictor.{stage}.freq_weight"] = torch.rand(CLASSES)
    return state


@pytest.fixture(scope="module")
def masa_state(official: State) -> State:
    """As `detic_masa.pth`: MASA's own parts, and the detector below `detector.`."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        own = Masa(VARIANTS["masa_detic"]).state_dict()
    return own | {f"detector.{name}": values for name, values in to_mmdet(official).items()}


@pytest.fixture(scope="module")
def frames() -> list[NDArray[np.uint8]]:
    """Three frames of one odd size and one of another."""
    generator = np.random.default_rng(0)
    sizes = [(75, 131), (75, 131), (75, 131), (90, 60)]
    return [generator.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in sizes]


def _features(state: State) -> FrameFeatures:
    model = load_model("masa_detic", state, compatible_offsets=None, device="cpu", seed=0)
    return FrameFeatures(model, SCALING)


def test_one_pass_gives_what_two_models_give(masa_state: State, frames: list[NDArray[np.uint8]]) -> None:
    features = _features(masa_state)
    passes: list[int] = []
    features.model.detector.backbone.register_forward_hook(lambda module, given, result: passes.append(len(given[0])))
    detector = MasaDeticDetector.build(MasaDeticSettings(), masa_state, features=features)
    found = detector.detect(frames)
    embeddings = features.embedder().embed(frames, [each.boxes for each in found])
    assert passes == [3, 1]  # a pass for the frames of each size, and none for the embeddings
    assert all(len(each) > 5 for each in found)

    alone = MasaDeticDetector.build(MasaDeticSettings(), masa_state, features=_features(masa_state)).detect(frames)
    embedder = ScaledEmbedder(_features(masa_state).model, SCALING, torch.device("cpu"))
    for one, other in zip(found, alone, strict=True):
        assert np.array_equal(one.boxes, other.boxes) and np.array_equal(one.scores, other.scores)
        assert np.array_equal(one.labels, other.labels)
    for mine, theirs in zip(embeddings, embedder.embed(frames, [each.boxes for each in found]), strict=True):
        assert np.array_equal(mine, theirs)


def _as_mmdet_does(network: DeticNetwork, maps: list[Tensor], height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and labels of one image, step by step as mmdetection's heads compute them with MASA's settings."""
    levels = network.backbone.levels(maps)
    logits, distances = network.proposal_generator(levels)
    boxes, scores = torch.zeros(0, 4), torch.zeros(0)
    for logit, distance, stride in zip(logits, distances, (8, 16, 32, 64, 128), strict=True):
        heat = logit[0, 0].sigmoid().flatten()
        sides = (distance[0] * stride).permute(1, 2, 0).reshape(-1, 4)
        y, x = torch.meshgrid(torch.arange(logit.shape[2]), torch.arange(logit.shape[3]), indexing="ij")
        places = torch.stack([x, y], dim=-1).reshape(-1, 2) * stride + stride / 2
        chosen = torch.nonzero(heat > 1e-4)[:, 0]
        chosen = chosen[heat[chosen].topk(min(1000, len(chosen))).indices]
        corner = places[chosen] - sides[chosen, :2]
        other = torch.maximum(places[chosen] + sides[chosen, 2:], corner + 0.01)
        boxes = torch.cat([boxes, torch.cat([corner, other], dim=1)])
        scores = torch.cat([scores, heat[chosen].sqrt()])
    kept = nms(boxes, scores, 0.9)[:256]
    boxes, scores = boxes[kept], scores[kept]

    probabilities = []
    stds = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
    for head, predictor, std in zip(network.roi_heads.box_head, network.roi_heads.box_predictor, stds, strict=True):
        side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
        level = torch.floor(torch.log2(side / 112 + 1e-6)).clamp(0, 2).long().tolist()
        regions = [
            roi_align(levels[index], [box[None]], 7, 1 / (8 << index), sampling_ratio=0, aligned=True)
            for index, box in zip(level, boxes, strict=True)
        ]
        feature = head(torch.cat(regions))
        probabilities.append(predictor.cls_score(feature).sigmoid())
        dx, dy, dw, dh = (predictor.bbox_pred(feature) * torch.tensor(std)).unbind(1)
        centre_x, centre_y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
        w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        most = math.log(1000 / 16)
        centre_x, centre_y = centre_x + dx * w, centre_y + dy * h
        w, h = w * dw.clamp(-most, most).exp(), h * dh.clamp(-most, most).exp()
        boxes = torch.stack([centre_x - w / 2, centre_y - h / 2, centre_x + w / 2, centre_y + h / 2], dim=1)
        boxes[:, 0::2].clamp_(0, width)
        boxes[:, 1::2].clamp_(0, height)
    class_scores = (sum(probabilities)[:, :-1] / 3 * scores[:, None]) ** 0.5  # type: ignore[index]
    rows, labels = torch.nonzero(class_scores > 0.01, as_tuple=True)
    kept = nms(boxes[rows], class_scores[rows, labels], 0.5)[:100]
    return boxes[rows[kept]], class_scores[rows, labels][kept], labels[kept]


@torch.no_grad()
def test_boxes_are_those_of_mmdetections_heads(
    official: State, masa_state: State, frames: list[NDArray[np.uint8]]
) -> None:
    features = _features(masa_state)
    detector = MasaDeticDetector.build(MasaDeticSettings(), masa_state, features=features)
    network = DeticNetwork(SMALL, CLASSES)
    network.load_state_dict({name: values for name, values in official.items() if "freq_weight" not in name})
    found = detector.detect(frames)
    for run in features.of(frames):
        for place, detections in enumerate(found[run.frames]):
            maps = [each[place : place + 1] for each in run.maps]
            boxes, scores, labels = _as_mmdet_does(network, maps, *run.scaled)
            # To the pixels of the frame, within it; boxes without an area are no detections.
            height, width = run.size
            back = (boxes.numpy() / run.factors).clip(0, [width, height, width, height])
            whole = (back[:, 2:] > back[:, :2]).all(axis=1)
            assert len(detections) == whole.sum() > 5
            np.testing.assert_allclose(detections.scores, scores.numpy()[whole], atol=1e-5)
            np.testing.assert_allclose(detections.boxes, back[whole], atol=2e-3)
            assert np.array_equal(detections.labels, labels.numpy()[whole])
    assert len(set(np.concatenate([each.labels for each in found]))) > 1

    settings = MasaDeticSettings(flavour="official")
    others = MasaDeticDetector.build(settings, masa_state, features=features).detect(frames)
    moved = max(np.abs(one.boxes[0] - other.boxes[0]).max() for one, other in zip(found, others, strict=True))
    assert 0.002 < moved < 0.5


def test_the_backbone_under_official_names_gives_the_same_maps(official: State, masa_state: State) -> None:
    """Odd sides, which patch embedding, windows and patch merging pad."""
    network = DeticNetwork(SMALL, CLASSES)
    network.load_state_dict({name: values for name, values in official.items() if "freq_weight" not in name})
    model = _features(masa_state).model
    batch = torch.randn(2, 3, 93, 141, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for mine, theirs in zip(model.backbone_maps(batch), network.backbone_maps(batch), strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_a_detic_in_mmdetections_form_fits_like_its_own(official: State, masa_state: State) -> None:
    for given in (official, to_mmdet(official), masa_state):
        network = DeticNetwork(SMALL, CLASSES)
        fit_network(network, official_tensors(Checkpoint(tensors=given)), own_classes=True)
        state = network.state_dict()
        assert all(torch.equal(values, official[name]) for name, values in state.items())


def test_names_and_shapes_of_the_full_size_are_all_known() -> None:
    """Of the official Swin-B and ResNet-50, renamed as mmdetection has them, and inside MASA."""
    for manifest, variant in (("detic_swinb", FULL["swinb"]), ("detic_r50", FULL["r50"])):
        entries = read_manifest(manifest)["entries"]
        shapes = {each["name"]: tuple(each["shape"]) for each in entries if not UNUSED.fullmatch(each["name"])}
        with torch.device("meta"):
            state = {name: torch.zeros(shape) for name, shape in shapes.items()}
            expected = DeticNetwork(variant, 22047).state_dict()
        for given in (to_mmdet(state), {f"detector.{name}": values for name, values in to_mmdet(state).items()}):
            found = to_official(given)
            assert {name: tuple(each.shape) for name, each in found.items()} == shapes
            left = {name for name in found.keys() ^ expected.keys() if not name.endswith("num_batches_tracked")}
            assert not left


def test_the_classes_are_swapped(masa_state: State, frames: list[NDArray[np.uint8]]) -> None:
    features = _features(masa_state)
    one = MasaDeticDetector.build(MasaDeticSettings(), masa_state, features=features)
    assert one.names == tuple(f"class {number}" for number in range(CLASSES))
    matrix = masa_state["detector.roi_head.bbox_head.0.fc_cls.zs_weight"]
    some = Vocabulary((matrix[:, [3, 1]].T * 7).numpy(), ("person", "dog"))  # of any length
    two = MasaDeticDetector.build(
        MasaDeticSettings(max_boxes=4, min_score=0.2), masa_state, features=features, vocabulary=some
    )
    assert two.names == ("person", "dog") and two.category_ids == (1, 2)
    found = two.detect(frames)
    assert all(len(each) <= 4 and (each.scores > 0.2).all() and each.names == two.names for each in found)
    assert any(len(each) for each in found)


def _save(state: State, path: Path) -> Path:
    torch.save({"state_dict": state, "meta": {"epoch": 1}}, path)
    return path


def test_one_file_read_once_for_the_whole_tracker(
    masa_state: State, frames: list[NDArray[np.uint8]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _save(masa_state, tmp_path / "detic_masa.pth")
    reads: list[str] = []
    real = trackmill.pipeline.weights.read_checkpoint

    def counted(path: Any, **more: Any) -> Any:
        reads.append(str(path))
        return real(path, **more)

    monkeypatch.setattr(trackmill.pipeline.weights, "read_checkpoint", counted)
    made = make_video_model(model="masa_detic", weights=str(path), detections="detic", scaling=SCALING, device="cpu")
    assert reads == [str(path)]
    assert isinstance(made, TwoStage)
    expected = MasaDeticDetector.build(MasaDeticSettings(), masa_state, features=_features(masa_state)).detect(frames)
    found = made.detector.detect(frames)
    assert [len(each) for each in found] == [len(each) for each in expected]
    assert all(np.array_equal(one.boxes, other.boxes) for one, other in zip(found, expected, strict=True))

    vocabulary = tmp_path / "two.npz"
    vectors = np.random.default_rng(1).standard_normal((2, EMBEDDING)).astype(np.float32)
    np.savez(vocabulary, embeddings=vectors, names=np.array(["person", "dog"]))
    made = make_video_model(
        model="masa_detic",
        weights=str(path),
        detections="detic",
        classes=str(vocabulary),
        min_score=0.2,
        scaling=SCALING,
        device="cpu",
        config=TrackConfig(detector={"max_boxes": 3}),
    )
    assert made.names == ("person", "dog")
    assert all(len(each) <= 3 for each in made.detector.detect(frames))


def _exported(state: State) -> State:
    return {name: values for name, values in state.items() if not name.startswith(VARIANTS["masa_detic"].aside)}


@pytest.mark.parametrize(
    ("model", "change", "said"),
    [
        # An export or a checkpoint of ours has no detector.
        ("masa_detic", _exported, "detic_masa.pth: holds masa_detic without the detector .*--detections detic:FILE"),
        ("masa_detic", None, "masa_detic has no weights to detect with; give the official detic_masa.pth"),
        # Parts of the detector are missing.
        (
            "masa_detic",
            lambda state: {name: each for name, each in state.items() if "scales.3" not in name},
            "1 missing: proposal_generator.centernet_head.scales.3.scale",
        ),
        # Another model has none inside.
        ("masa_lite0", None, "--model masa_detic"),
    ],
)
def test_what_has_no_detector_inside_is_told(
    masa_state: State, model: str, change: Any, said: str, tmp_path: Path
) -> None:
    weights = str(_save(change(masa_state), tmp_path / "detic_masa.pth")) if change else None
    with pytest.raises(ValueError, match=said) as raised:
        make_video_model(model=model, weights=weights, detections="detic", scaling=SCALING, device="cpu")
    assert "\n" not in str(raised.value)


def test_an_export_is_no_detic_and_that_is_told(masa_state: State) -> None:
    with pytest.raises(ValueError, match=r"these weights are of MASA without Detic's heads: detic_masa\.pth has them"):
        trackmill.models.detic.load(_exported(masa_state))


def test_without_a_detector_nothing_more_is_kept(masa_state: State) -> None:
    model = _features(masa_state).model
    assert not any(name.startswith(VARIANTS["masa_detic"].aside) for name in model.state_dict())
    assert sum(name.startswith("detector.backbone.") for name in model.state_dict()) == sum(
        name.startswith("detector.backbone.") for name in masa_state
    )
