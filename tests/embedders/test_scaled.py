"""Embeddings of boxes in frames of any size: what the model is handed, and that batches change nothing."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from trackmill.models import masa  # noqa: E402
from trackmill.models.detectors.frame_scaling import FrameScaling  # noqa: E402
from trackmill.models.embedders.scaled import ScaledEmbedder  # noqa: E402
from trackmill.models.masa.frame_features import FeatureEmbedder, FrameFeatures  # noqa: E402
from trackmill.models.masa.model import Masa  # noqa: E402

SCALING = FrameScaling(long_side=96, short_side=96)


@pytest.fixture(scope="module")
def model() -> Masa:
    return masa.load("masa_lite0")


def frames(*sizes: tuple[int, int]) -> list[np.ndarray]:
    return [np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8) for i, size in enumerate(sizes)]


def boxes(*counts: int) -> list[np.ndarray]:
    """Some of them leave the frame, some lie outside."""
    rng = np.random.default_rng(7)
    corners = [rng.uniform(-30, 60, (count, 2)) for count in counts]
    return [
        np.concatenate([each, each + rng.uniform(1, 60, each.shape)], axis=1).astype(np.float32) for each in corners
    ]


def test_what_the_model_is_handed() -> None:
    """Boxes by the exact factors of both axes; only frames with boxes; one batch a run of one size."""
    calls = []

    class Recording:
        def embed(self, images: torch.Tensor, boxes: list[torch.Tensor]) -> list[torch.Tensor]:
            calls.append((tuple(images.shape), [each.numpy().copy() for each in boxes]))
            return [each[:, :2] for each in boxes]

    images = frames((40, 30), (40, 30), (40, 30), (20, 64), (40, 30))
    given = boxes(2, 0, 1, 3, 0)
    found = ScaledEmbedder(Recording(), SCALING).embed(images, given)
    assert [shape for shape, _ in calls] == [(2, 3, 96, 72), (1, 3, 30, 96)]
    factor = np.array([72 / 30, 96 / 40] * 2)
    assert np.allclose(calls[0][1][1], given[2] * factor)
    assert np.allclose(calls[1][1][0], given[3] * np.array([1.5, 1.5, 1.5, 1.5]))
    assert [len(each) for each in found] == [2, 0, 1, 3, 0]
    assert np.allclose(found[2], given[2][:, :2] * factor[:2])


def test_batches_and_sharing_change_nothing(model: Masa) -> None:
    images = frames((48, 64), (48, 64), (60, 40), (48, 64))
    given = boxes(3, 0, 2, 4)
    together = ScaledEmbedder(model, SCALING).embed(images, given)
    shared = FeatureEmbedder(FrameFeatures(model, SCALING)).embed(images, given)
    for image, each, one, other in zip(images, given, together, shared, strict=True):
        alone = ScaledEmbedder(model, SCALING).embed([image], [each])[0]
        assert len(one) == len(other) == len(each)
        if len(each):
            assert one.dtype == np.float32
            assert np.abs(one - alone).max() < 1e-5
            assert np.abs(one - other).max() < 1e-5
    assert np.abs(np.concatenate([together[0], together[2], together[3]])).max() > 0.1


def test_embeddings_are_the_models_own(model: Masa) -> None:
    """Without scaling nothing stands between the frame and the model."""
    (image,), (each,) = frames((64, 96)), boxes(5)
    found = ScaledEmbedder(model, SCALING).embed([image], [each])[0]
    batch = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    assert np.abs(found - model.embed(batch, [torch.from_numpy(each)])[0].numpy()).max() < 1e-6


def test_the_same_frames_are_computed_once(model: Masa, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    maps = model.backbone_maps
    monkeypatch.setattr(model, "backbone_maps", lambda batch: (calls.append(len(batch)), maps(batch))[1])
    features = FrameFeatures(model, SCALING)
    images = frames((48, 64), (48, 64))
    first = features.of(images)
    assert features.of(list(images)) is first
    assert calls == [2]
    features.of([images[0], images[1].copy()])
    assert calls == [2, 2], "equal pixels in another array are another frame"
    assert features.of([]) == []


def test_no_box_anywhere(model: Masa) -> None:
    images = frames((48, 64), (48, 64))
    for embedder in (ScaledEmbedder(model, SCALING), FeatureEmbedder(FrameFeatures(model, SCALING))):
        assert [len(each) for each in embedder.embed(images, boxes(0, 0))] == [0, 0]
        assert embedder.embed([], []) == []
