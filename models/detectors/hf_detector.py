"""Object detectors of Hugging Face's transformers behind the `Detector` contract.

A network of fixed classes (DETR, RT-DETR, YOLOS, ...) gives what `pipeline("object-detection")` gives. One that is told
what to find (Grounding DINO, OWL-ViT) lies in `hf_prompted`. Both come with their own processor, which prepares images
and reads results; nothing of that is done here a second time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from trackmill.models.detectors.base import Detector
from trackmill.models.detectors.hf_folder import is_folder, load_network, model_type, require_type
from trackmill.models.detectors.options import DetectorOptions
from trackmill.schemas.detections import Detections
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

OBJECT_SCORE = 0.5
"""Least score of a network of fixed classes, as in transformers' pipeline."""

_NOTHING = ("n/a", "background", "__background__", "no object", "nothing")


class HfSettings(DetectorOptions):
    """Which model, and what it gives. Defaults of `min_score` are transformers': 0.5, Grounding DINO 0.25, OWL 0.1."""

    model: str = Field(description="A folder that transformers saved, or ORGANISATION/NAME of a model on the hub.")
    revision: str = Field("", description="Of a hub: branch, tag or commit; empty: the newest.")
    text_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Grounding DINO: a box is left out if no word of a class reaches it; left out: as min_score.",
    )
    classes_per_prompt: int = Field(
        0, ge=0, description="Told what to find: classes of one pass; 0: as many as fit. 1: as transformers' pipeline."
    )


class HfDetector(Detector):
    """What the registry offers as `hf`: picks the kind of detector by the model's own configuration."""

    Config = HfSettings
    version = 1

    @classmethod
    def build(
        cls,
        config: HfSettings,
        tensors: Mapping[str, torch.Tensor] | None = None,
        device: torch.device | str = "cpu",
    ) -> Detector:
        """What the registry builds; see `trackmill.models.registry`.

        Raises:
            InputError: no such model, one of another task, tensors that do not fit, or no classes for a model that has
                to be told; one line.
            MissingPackage: a package is missing.
        """
        import transformers.models.auto.modeling_auto as auto

        if tensors is not None:
            raise InputError(f"hf:{config.model}: its weights are in the model's folder; leave --detector-weights out")
        prompted: dict[str, str] = dict(auto.MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES)
        fixed: dict[str, str] = dict(auto.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES)
        name = str(Path(config.model).expanduser()) if is_folder(config.model) else config.model
        kind = model_type(name, config.revision)
        require_type(name, kind, {**fixed, **prompted}, "object detector of transformers")
        if kind in prompted:
            from trackmill.models.detectors.hf_prompted import PromptedDetector

            return PromptedDetector.load(name, config, device, prompted)
        network, processor = load_network(name, config.revision, "AutoModelForObjectDetection", fixed)
        return FixedClassDetector(network, processor, config, device)

    @classmethod
    def recognise(cls, tensors: Mapping[str, torch.Tensor]) -> str | None:
        """None: a model is a folder here, and no checkpoint file."""
        return None

    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        """Never called: `build` gives another class."""
        raise AssertionError("HfDetector.build gives the detector")


class FixedClassDetector(Detector):
    """A network of fixed classes: `pipeline("object-detection")` without its rounding of boxes to whole pixels.

    Detections stand in the network's own order, and boxes may leave the image by a little, as in transformers.

    Args:
        network: of one of `AutoModelForObjectDetection`'s classes.
        processor: its image processor.
        options: `min_score`: 0.5 if left out.
        device: where it is put.

    Raises:
        InputError: the processor cannot read boxes out of the network's output.
    """

    applies = frozenset({"min_score"})

    def __init__(self, network: Any, processor: Any, options: HfSettings, device: torch.device | str = "cpu") -> None:
        if not hasattr(processor, "post_process_object_detection"):
            raise InputError(f"hf:{options.model}: {type(processor).__name__} gives no boxes: take another detector")
        labels: Mapping[Any, str] = network.config.id2label
        self.names = tuple(str(labels.get(label, f"class {label}")) for label in range(max(labels, default=-1) + 1))
        # Where label 0 is a class, files count from 1: class 0 means no class in most formats.
        first = 0 if self.names and self.names[0].lower() in _NOTHING else 1
        self.category_ids = tuple(range(first, len(self.names) + first))
        self._network, self._processor = network.to(device), processor
        self._least = OBJECT_SCORE if options.min_score is None else options.min_score

    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        """See `Detector.detect`. Images that the processor makes equally large share a batch, so none is padded."""
        prepared = [self._processor(images=[as_picture(image)], return_tensors="pt") for image in images]

        def results(outputs: Any, sizes: Tensor) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = self._processor.post_process_object_detection(outputs, self._least, sizes)
            return found

        each = run_in_groups(self._network, prepared, images, results)
        return [detections(one["boxes"], one["scores"], one["labels"], self.names) for one in each]


def as_picture(image: NDArray[np.uint8]) -> Any:
    """A picture, as transformers' pipelines hand it to processors: of an array they would guess where channels are."""
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(image))


def run_in_groups(
    network: Any, prepared: Sequence[Mapping[str, Tensor]], images: Sequence[NDArray[np.uint8]], results: Any
) -> list[dict[str, Any]]:
    """Run a network over prepared images, those of one size together, and read each one's results.

    Processors pad a batch to its largest image, and the padding changes results; here each image is prepared alone.

    Args:
        network: in evaluation mode.
        prepared: what the processor makes of each image.
        images: (H, W, 3) each.
        results: of the network's outputs and (B, 2) heights and widths of the images: what was found, one an image.

    Returns:
        What was found in each image, in their order.
    """
    import torch

    groups: dict[Any, list[int]] = {}
    for place, inputs in enumerate(prepared):
        shapes = tuple((key, tuple(value.shape)) for key, value in inputs.items() if hasattr(value, "shape"))
        groups.setdefault(shapes, []).append(place)
    device = next(network.parameters()).device
    found: list[dict[str, Any]] = [{} for _ in prepared]
    with torch.inference_mode():
        for shapes, places in groups.items():
            batch = {key: torch.cat([prepared[place][key] for place in places]).to(device) for key, _ in shapes}
            sizes = torch.tensor([images[place].shape[:2] for place in places], dtype=torch.int32, device=device)
            for place, one in zip(places, results(network(**batch), sizes), strict=True):
                found[place] = one
    return found


def detections(boxes: Tensor, scores: Tensor, labels: Any, names: tuple[str, ...]) -> Detections:
    """One image's results; boxes that are no boxes (a side below zero, or not finite) are left out."""
    import torch

    sound = torch.isfinite(boxes).all(dim=1) & (boxes[:, 2:] >= boxes[:, :2]).all(dim=1) & torch.isfinite(scores)
    labels = torch.as_tensor(labels, device=boxes.device)
    return Detections(
        boxes=boxes[sound].float().cpu().numpy(),
        scores=scores[sound].float().cpu().numpy(),
        labels=labels[sound].to(torch.int64).cpu().numpy(),
        names=names,
    )
