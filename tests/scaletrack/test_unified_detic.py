"""scaletrack_unified_detic: one pass of the frozen Swin gives Detic's boxes and the embeddings.

The networks are small ones of the same build, put where the registry finds the large ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from tests.masa.test_detic_detector import CLASSES, EMBEDDING, SCALING, SIZES, SMALL
from trackmill.models.association import ScaleTrackTracker
from trackmill.models.backbones import multilevel
from trackmill.models.backbones.swin import Swin
from trackmill.models.detic import settings as detic_settings
from trackmill.models.detic.network import DeticNetwork
from trackmill.models.scaletrack.detic_detector import SharedFeatures, UnifiedDeticDetector, UnifiedDeticSettings
from trackmill.models.scaletrack.metadata import metadata_of
from trackmill.models.scaletrack.model import ScaleTrack
from trackmill.models.scaletrack.variants import VARIANTS
from trackmill.pipeline.tracking.build import make_video_model
from trackmill.pipeline.tracking.timing import StageTimes
from trackmill.pipeline.tracking.two_stage import TwoStage
from trackmill.schemas.tracking import SourceFrame

VARIANT = replace(
    VARIANTS["scaletrack_unified_detic"],
    side=96,
    channels=32,
    heads=4,
    norm_groups=8,
    feedforward=32,
    encoder_layers=1,
    decoder_layers=1,
    window=2,
    dimensions=16,
)


def small_swin() -> multilevel.MultiLevelBackbone:
    network = Swin(7, spelling="original", **SIZES)
    return multilevel.MultiLevelBackbone("detic_swinb", network, channels=(32, 64, 128), strides=(8, 16, 32))


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(multilevel.BACKBONES, "detic_swinb", small_swin)
        patch.setitem(VARIANTS, "scaletrack_unified_detic", VARIANT)
        patch.setitem(detic_settings.VARIANTS, "swinb", SMALL)
        yield


@pytest.fixture(scope="module")
def official(small: None) -> dict[str, Tensor]:
    """A whole Detic in its own names, whose boxes are some strides wide."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        state = {name: values.clone() for name, values in DeticNetwork(SMALL, CLASSES).state_dict().items()}
        for name, values in state.items():
            if values.is_floating_point() and values.ndim > 1 and "relative_position" not in name:
                values.copy_(torch.randn(values.shape) / (values.numel() / len(values)) ** 0.5)
        state["proposal_generator.centernet_head.bbox_pred.bias"] += 3
        matrix = torch.nn.functional.normalize(torch.randn(EMBEDDING, CLASSES), dim=0)
    for stage in range(3):
        state[f"roi_heads.box_predictor.{stage}.cls_score.zs_weight"] = torch.nn.functional.pad(matrix, (0, 1))
    return state


@pytest.fixture(scope="module")
def model(official: dict[str, Tensor]) -> ScaleTrack:
    """Trained, so to speak, on the Swin of that Detic."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        made = ScaleTrack(VARIANT).eval().requires_grad_(False)
    below = "backbone.bottom_up."
    made.backbone.network.load_state_dict(
        {name.removeprefix(below): values for name, values in official.items() if name.startswith(below)}
    )
    return made


def frames() -> list[NDArray[np.uint8]]:
    """Three frames of one odd size and one of another."""
    generator = np.random.default_rng(0)
    sizes = [(75, 131), (75, 131), (75, 131), (90, 60)]
    return [generator.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in sizes]


def test_one_pass_of_the_backbone_for_boxes_and_embeddings(
    official: dict[str, Tensor], model: ScaleTrack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, detic = tmp_path / "own.safetensors", tmp_path / "detic.pth"
    save_file(dict(model.state_dict()), own, metadata_of(VARIANT))
    torch.save({"model": official}, detic)
    made = make_video_model(
        model="scaletrack_unified_detic",
        weights=str(own),
        detections="detic",
        detector_weights=str(detic),
        scaling=SCALING,
        device="cpu",
    )
    assert isinstance(made, TwoStage) and isinstance(made.tracker, ScaleTrackTracker)
    passes: list[int] = []
    forward = Swin.forward

    def counted(network: Swin, batch: Tensor) -> list[Tensor]:
        passes.append(len(batch))
        return forward(network, batch)

    monkeypatch.setattr(Swin, "forward", counted)
    images = frames()
    given = [
        SourceFrame(index=i, number=i + 1, time_s=float(i), image=image, file_name="") for i, image in enumerate(images)
    ]
    tracked = made.track(given, StageTimes())
    assert sum(passes) == len(images)  # each frame once, for both
    assert sum(each.num_detections for each in tracked) > 0
    # Detections are those of a Detic by itself, on the same frames.
    alone = UnifiedDeticDetector.build(UnifiedDeticSettings(), official, features=SharedFeatures(model, SCALING))
    assert [len(each) for each in alone.detect(images)] == [each.num_detections for each in tracked]


def test_embeddings_remember_and_do_not_depend_on_batches(model: ScaleTrack) -> None:
    images = frames()
    boxes = [np.array([[5, 5, 40, 50], [30, 20, 60, 70]], np.float32) for _ in images]
    boxes[1] = boxes[1][:0]
    embedder = SharedFeatures(model, SCALING).embedder()
    together = embedder.embed(images, boxes)
    embedder.reset()
    single = [embedder.embed([image], [each])[0] for image, each in zip(images, boxes, strict=True)]
    for one, other in zip(together, single, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    embedder.reset()
    third = embedder.embed(images[2:3], boxes[2:3])[0]
    assert np.abs(third - together[2]).max() > 1e-4  # it had looked back
    embedder.reset()
    np.testing.assert_allclose(embedder.embed(images[3:], boxes[3:])[0], together[3], atol=2e-5)  # another shape


def test_what_does_not_go_together_is_told(official: dict[str, Tensor], model: ScaleTrack) -> None:
    features = SharedFeatures(model, SCALING)
    with pytest.raises(ValueError, match=r"no weights to detect with; name Detic's own .*--detector-weights"):
        UnifiedDeticDetector.build(UnifiedDeticSettings(), None, features=features)
    with pytest.raises(ValueError, match=r"holds scaletrack_unified_detic without Detic's heads.*--detector-weights"):
        UnifiedDeticDetector.build(UnifiedDeticSettings(), model.state_dict(), features=features)
    name = "backbone.bottom_up.layers.0.blocks.0.mlp.fc1.bias"
    other = official | {name: official[name] + 1}
    with pytest.raises(ValueError, match=r"its backbone is not the one .*layers.0.blocks.0.mlp.fc1.bias differs"):
        UnifiedDeticDetector.build(UnifiedDeticSettings(), other, features=features)
