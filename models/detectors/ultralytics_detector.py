"""Detectors of the package `ultralytics` (YOLO, RT-DETR) behind the `Detector` contract, where the user has it.

The package is under AGPL-3.0, so it is no dependency of ours, in no extra: it is imported when it is asked for, and
nothing of it is copied here. It reads its own files and fetches its published ones. Its `.pt` files are pickles:
loading one runs code that is in it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from trackmill.models.detectors.base import Detector, check_images
from trackmill.models.detectors.options import DetectorOptions
from trackmill.schemas.detections import Detections, make_detections
from trackmill.schemas.errors import InputError, MissingPackage

if TYPE_CHECKING:
    import torch

LICENCE = "AGPL-3.0, or a licence of its makers"


class UltralyticsSettings(DetectorOptions):
    """Which model, and what it gives. What is left out is as the package has it: scores from 0.25, NMS at 0.7."""

    model: str = Field(description="A file of the package, such as yolo11n.pt (its own are fetched), or best.onnx.")
    image_size: int = Field(640, ge=32, le=8192, description="Longer side at which images are looked at.")
    half: bool = Field(False, description="Half precision; on GPUs.")


class UltralyticsDetector(Detector):
    """One of the package's models.

    Args:
        model: what `ultralytics.YOLO` made: `predict(images, ...)` and `names`.
        options: see `UltralyticsSettings`.
        device: where it runs.

    Raises:
        InputError: the model finds no boxes.
    """

    Config = UltralyticsSettings
    applies = frozenset({"min_score", "nms_iou", "class_agnostic_nms", "max_boxes"})
    libraries = ("ultralytics",)
    """What decides its detections beside torch, for fingerprints."""

    def __init__(self, model: Any, options: UltralyticsSettings, device: torch.device | str = "cpu") -> None:
        task = getattr(model, "task", "detect")
        if task not in ("detect", "segment", "pose"):
            raise InputError(f"ultralytics:{options.model}: is a model for {task}, and gives no upright boxes")
        self._model = model
        names: Mapping[int, str] = dict(model.names)
        last = max(names, default=-1)
        self.names = tuple(str(names.get(label, f"class {label}")) for label in range(last + 1))
        self.category_ids = tuple(range(1, len(self.names) + 1))
        said = {
            "conf": options.min_score,
            "iou": options.nms_iou,
            "agnostic_nms": options.class_agnostic_nms,
            "max_det": options.max_boxes,
        }
        self._said: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
        self._said |= {"imgsz": options.image_size, "half": options.half, "device": str(device), "verbose": False}

    @classmethod
    def build(
        cls,
        config: UltralyticsSettings,
        tensors: Mapping[str, torch.Tensor] | None = None,
        device: torch.device | str = "cpu",
    ) -> UltralyticsDetector:
        """What the registry builds; see `trackmill.models.registry`.

        Raises:
            InputError: no such model.
            MissingPackage: the package is not installed; says what to type, and under what licence it is.
        """
        if tensors is not None:
            raise InputError(f"ultralytics:{config.model}: its weights are in its own file; give no others")
        try:
            load = importlib.import_module("ultralytics").YOLO
        except ImportError as error:
            raise MissingPackage(
                f"ultralytics:{config.model} needs the package ultralytics ({error}), which is under {LICENCE}: if "
                "that suits you, pip install ultralytics (beside another opencv wheel with --no-deps, and then what it "
                "says is missing)"
            ) from None
        try:
            model = load(config.model)
        except (FileNotFoundError, ValueError, TypeError) as error:
            raise InputError(f"ultralytics:{config.model}: cannot be loaded: {error}") from None
        return cls(model, config, device)

    @classmethod
    def recognise(cls, tensors: Mapping[str, torch.Tensor]) -> str | None:
        """None: a model is a file of the package here, and no checkpoint of ours."""
        return None

    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        """See `Detector.detect`. Images of one size share a batch: the package would pad others."""
        check_images(images)
        found: list[Detections | None] = [None] * len(images)
        for shape in dict.fromkeys(image.shape for image in images):
            rows = [row for row, image in enumerate(images) if image.shape == shape]
            # Arrays are taken as blue, green, red there.
            given = [np.ascontiguousarray(images[row][:, :, ::-1]) for row in rows]
            for row, result in zip(rows, self._model.predict(given, **self._said), strict=True):
                boxes = result.boxes
                columns = (boxes.xyxy, boxes.conf, boxes.cls)
                xyxy, scores, labels = (np.asarray(each.cpu(), np.float32) for each in columns)
                found[row] = make_detections(xyxy.reshape(-1, 4), scores, labels.astype(np.int64), names=self.names)
        return [each for each in found if each is not None]
