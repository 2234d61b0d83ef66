"""Every detector against one contract; MASA's proposals and SAM's masks against their models used directly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from tests.tracking.make_tracking import write_mot_detections  # noqa: E402
from trackmill.models import masa  # noqa: E402
from trackmill.models.detectors.base import Detector  # noqa: E402
from trackmill.models.detectors.frame_scaling import FrameScaling  # noqa: E402
from trackmill.models.detectors.torchvision_detector import (  # noqa: E402
    TorchvisionDetector,
    published_weights,
    torchvision_names,
)
from trackmill.models.masa.detector import MasaProposals, never_trained  # noqa: E402
from trackmill.models.masa.frame_features import FrameFeatures  # noqa: E402
from trackmill.models.masa.rpn_inference import DetectionSettings  # noqa: E402
from trackmill.pipeline.tracking.detection_files import read_detections  # noqa: E402
from trackmill.schemas.boxes import clip_boxes, iou_matrix  # noqa: E402
from trackmill.schemas.masks import paste_mask  # noqa: E402

NAMES = ("__background__", "cat", "dog")
SIZES = ((48, 64), (48, 64), (70, 40))


def images() -> list[np.ndarray]:
    return [np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8) for i, size in enumerate(SIZES)]


def torchvision_detector(name: str = "fasterrcnn_mobilenet_v3_large_320_fpn", **options: object) -> TorchvisionDetector:
    torch.manual_seed(0)
    small = {"min_size": 64, "max_size": 64, "box_detections_per_img": 6}
    return TorchvisionDetector(name, names=NAMES, min_score=0.0, **{**small, **options})


def proposals(kept: int = 20, long_side: int = 96) -> MasaProposals:
    features = FrameFeatures(masa.load("masa_lite0"), FrameScaling(long_side=long_side, short_side=long_side))
    return MasaProposals(features, DetectionSettings(score_threshold=0.0, kept=kept))


@pytest.fixture(params=["file", "torchvision", "masa"])
def detector(request: pytest.FixtureRequest, tmp_path: Path) -> Detector:
    if request.param == "file":
        return read_detections(str(write_mot_detections(tmp_path / "det.txt", 3)), "clip", {})
    return torchvision_detector() if request.param == "torchvision" else proposals()


def test_the_contract(detector: Detector) -> None:
    found = detector.detect(images(), [0, 1, 2])
    assert len(found) == 3
    assert len(detector.names) == len(detector.category_ids)
    assert sum(map(len, found)) > 0
    for number, (image, each) in enumerate(zip(images(), found, strict=True)):
        assert each.names == detector.names
        (alone,) = detector.detect([image], [number])
        assert np.abs(alone.boxes - each.boxes).max(initial=0) < 1e-3
        assert np.abs(alone.scores - each.scores).max(initial=0) < 1e-5
        assert (alone.labels == each.labels).all()
    assert detector.detect([], []) == []


@pytest.mark.parametrize("build", [torchvision_detector, proposals])
def test_networks_give_boxes_inside_the_image_best_first(build: object) -> None:
    for image, each in zip(images(), build().detect(images()), strict=True):
        assert (each.boxes == clip_boxes(each.boxes, *image.shape[:2])).all()
        assert (np.diff(each.scores) <= 0).all()


def test_proposals_are_the_models_own_in_pixels_of_the_frame() -> None:
    detector = proposals()
    image = images()[0]
    (found,) = detector.detect([image])
    scaling = FrameScaling(long_side=96, short_side=96)
    model = masa.load("masa_lite0")
    settings = DetectionSettings(score_threshold=0.0, kept=20)
    ((boxes, scores),) = model.propose(scaling.scale([image], "cpu"), detections=settings)
    assert np.abs(found.boxes * 1.5 - boxes.numpy()).max() < 1e-3
    assert np.abs(found.scores - scores.numpy()).max() < 1e-6
    assert len(found) == 20


def test_proposals_obey_their_settings() -> None:
    (found,) = proposals(kept=7).detect(images()[:1])
    assert len(found) == 7
    overlaps = iou_matrix(found.boxes, found.boxes) - np.eye(7)
    assert overlaps.max() <= 0.5 + 1e-4


def test_torchvision_weights_fit_or_are_refused() -> None:
    detector = torchvision_detector()
    state = detector._model.state_dict()
    torch.manual_seed(1)
    again = TorchvisionDetector(
        "fasterrcnn_mobilenet_v3_large_320_fpn", state, names=NAMES, min_score=0.0, min_size=64, max_size=64,
        box_detections_per_img=6,
    )  # fmt: skip
    for one, other in zip(detector.detect(images()), again.detect(images()), strict=True):
        assert (one.boxes == other.boxes).all()
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    with pytest.raises(ValueError, match=r"4 of another shape: .*cls_score.*give the state dict of this very network"):
        TorchvisionDetector(name, state, names=(*NAMES, "bird"))
    with pytest.raises(ValueError, match="torchvision has none of that name"):
        TorchvisionDetector("yolo")
    assert name in torchvision_names()
    assert published_weights(name).startswith("https://")


def test_torchvision_masks() -> None:
    detector = torchvision_detector("maskrcnn_resnet50_fpn", box_detections_per_img=3, mask_threshold=0.4)
    image = images()[0]
    (found,) = detector.detect([image])
    assert found.masks is not None
    assert len(found.masks) == len(found) > 0
    for mask, box in zip(found.masks, found.boxes, strict=True):
        if mask is not None:
            rows, columns = np.nonzero(paste_mask(mask, *image.shape[:2]))
            assert columns.min() >= box[0] - 2
            assert rows.max() <= box[3] + 2


def test_published_classes_are_cocos() -> None:
    detector = TorchvisionDetector("ssdlite320_mobilenet_v3_large")
    assert detector.names[1] == "person"
    assert len(detector.names) == 91
    assert detector.category_ids[90] == 90


def test_masks_need_sam() -> None:
    pytest.importorskip("segment_anything")
    from trackmill.models.masa.masks import SamMasks

    with pytest.raises(ValueError, match="masa_lite0 has no mask decoder"):
        SamMasks(FrameFeatures(masa.load("masa_lite0"), FrameScaling()))


@pytest.mark.slow
def test_masks_are_sams_own() -> None:
    """Against segment-anything's `Sam.forward` with the same modules, box prompts and image."""
    pytest.importorskip("segment_anything")
    from segment_anything.modeling import Sam

    from trackmill.models.masa.masks import SamMasks

    torch.manual_seed(0)
    features = FrameFeatures(masa.load("masa_sam_vitb"), FrameScaling())
    image = np.kron(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), np.ones((12, 12, 1), np.uint8))
    boxes = np.array([[5, 5, 60, 50], [30, 20, 90, 70], [-10, -10, 200, 200]], np.float32)
    segmenter = SamMasks(features)
    found = segmenter.segment([image], [boxes])
    assert segmenter.segment([image], [boxes[:0]]) == [()]

    detector = features.model.detector
    mean, deviation = features.model.variant.mean, features.model.variant.std
    sam = Sam(detector.backbone, detector.prompt_encoder, detector.mask_decoder, list(mean), list(deviation)).eval()
    scaled = features.scaling.scale([image], "cpu")[0]
    prompts = torch.from_numpy(boxes * features.scaling.factors(*image.shape[:2]))
    with torch.no_grad():
        record = {"image": scaled, "original_size": image.shape[:2], "boxes": prompts}
        (theirs,) = sam([record], multimask_output=False)
    expected = theirs["masks"][:, 0].numpy()  # (N, H, W)
    assert 0 < expected.mean() < 1
    for mask, pixels in zip(found[0], expected, strict=True):
        ours = np.zeros_like(pixels) if mask is None else paste_mask(mask, *pixels.shape)
        # A logit of nearly 0 may fall to either side.
        assert (ours != pixels).mean() < 1e-3


def test_a_proposal_head_that_was_never_trained_is_told(caplog: pytest.LogCaptureFixture) -> None:
    features = FrameFeatures(masa.load("masa_lite0"), FrameScaling(long_side=96, short_side=96))
    MasaProposals.build(MasaProposals.Config(), features=features)
    assert "masa_lite0: its proposal head was never trained" in caplog.text
    caplog.clear()
    with torch.no_grad():
        features.model.rpn_head.rpn_cls.bias[0] = 0.01  # what one step of training does
    assert not never_trained(features.model)
    MasaProposals.build(MasaProposals.Config(), features=features)
    assert caplog.text == ""
