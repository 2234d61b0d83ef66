"""Detectors of the package `ultralytics`, which is no dependency: what it is asked, and what is made of its answer.

A stand-in has the part of its interface that is used; it cannot be installed with us.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from trackmill.models.registry import find_detector  # noqa: E402
from trackmill.schemas.errors import InputError, MissingPackage  # noqa: E402

CALLS: list[tuple[list[np.ndarray], dict[str, Any]]] = []


class StandIn:
    """Finds, in every picture, a box of class 2 whose width is the blue of the first pixel, and one of class 0."""

    task = "detect"

    def __init__(self, model: str) -> None:
        self.names = {0: "person", 2: "car"}
        if model == "gone.pt":
            raise FileNotFoundError(model)
        if model == "turned.pt":
            self.task = "obb"

    def predict(self, images: Sequence[np.ndarray], **options: Any) -> list[Any]:
        CALLS.append((list(images), options))
        return [self._result(image) for image in images]

    def _result(self, image: np.ndarray) -> Any:
        boxes = torch.tensor([[1.0, 2.0, 1.0 + float(image[0, 0, 0]), 9.0], [0.0, 0.0, 5.0, 5.0]])
        found = SimpleNamespace(xyxy=boxes, conf=torch.tensor([0.9, 0.5]), cls=torch.tensor([2.0, 0.0]))
        return SimpleNamespace(boxes=found)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("ultralytics")
    module.YOLO = StandIn
    monkeypatch.setitem(sys.modules, "ultralytics", module)
    CALLS.clear()


def picture(blue: int, height: int = 20) -> np.ndarray:
    image = np.zeros((height, 30, 3), np.uint8)
    image[..., 2] = blue
    return image


def test_boxes_classes_and_order(package: None) -> None:
    detector = find_detector("ultralytics:yolo11n.pt").build()
    assert detector.names == ("person", "class 1", "car") and detector.category_ids == (1, 2, 3)
    images = [picture(3), picture(4, height=24), picture(5)]
    found = detector.detect(images)
    assert [each.boxes[0].tolist() for each in found] == [[1, 2, 4, 9], [1, 2, 5, 9], [1, 2, 6, 9]]
    assert found[0].labels.tolist() == [2, 0] and found[0].scores.tolist() == pytest.approx([0.9, 0.5])
    assert [len(given) for given, _ in CALLS] == [2, 1], "those of one size together"
    assert (images[0][..., 2] == 3).all()


def test_options_reach_the_package_or_are_applied_behind_it(package: None) -> None:
    options = {"min_score": 0.1, "nms_iou": 0.6, "max_boxes": 9, "classes": ("car",), "image_size": 320}
    detector = find_detector("ultralytics:best.pt", options).build(device="cpu")
    (found,) = detector.detect([picture(3)])
    assert found.labels.tolist() == [2]
    said = CALLS[-1][1]
    assert (said["conf"], said["iou"], said["max_det"], said["imgsz"], said["device"]) == (0.1, 0.6, 9, 320, "cpu")
    find_detector("ultralytics:best.pt").build().detect([picture(3)])
    assert not {"conf", "iou", "max_det", "agnostic_nms"} & set(CALLS[-1][1]), "left out: as the package has it"


def test_mistakes(package: None) -> None:
    with pytest.raises(InputError, match="say which one: ultralytics:MODEL"):
        find_detector("ultralytics:")
    with pytest.raises(InputError, match=r"ultralytics:gone\.pt: cannot be loaded"):
        find_detector("ultralytics:gone.pt").build()
    with pytest.raises(InputError, match="is a model for obb, and gives no upright boxes"):
        find_detector("ultralytics:turned.pt").build()
    with pytest.raises(InputError, match="give no others"):
        find_detector("ultralytics:yolo11n.pt").build({})


def test_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    with pytest.raises(MissingPackage, match=r"under AGPL-3\.0.*pip install ultralytics"):
        find_detector("ultralytics:yolo11n.pt").build()
