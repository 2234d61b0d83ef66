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

from trackmill.models.detectors.base import Detector, check_images
from trackmill.models.detectors.hf_folder import is_folder, load_network, model_type, require_type
from trackmill.models.detectors.hf_running import HfSettings, as_picture, detections, run_in_groups
from trackmill.schemas.detections import Detections
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

OBJECT_SCORE = 0.5
"""Least score of a network of fixed classes, as in transformers' pipeline."""

_MOST_LABELS = 1_000_000
"""A number in a file, which decides how long a list is made."""

_NOTHING = ("n/a", "background", "__background__", "no object", "nothing")


class HfDetector(Detector):
    """What the registry offers as `hf`: picks the kind of detector by the model's own configuration."""

    Config = HfSettings
    version = 1
    libraries = ("transformers", "tokenizers", "timm")
    """What decides its detections beside torch, for fingerprints."""

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
            raise InputError(f"hf:{config.model}: its weights are in the model's folder; give no others")
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
        last = max(labels, default=-1)
        if last >= _MOST_LABELS:
            raise InputError(f"hf:{options.model}: its id2label counts to {last:,}, more than {_MOST_LABELS:,}")
        self.names = tuple(str(labels.get(label, f"class {label}")) for label in range(last + 1))
        # Where label 0 is a class, files count from 1: class 0 means no class in most formats.
        first = 0 if self.names and self.names[0].lower() in _NOTHING else 1
        self.category_ids = tuple(range(first, len(self.names) + first))
        self._network, self._processor = network.to(device), processor
        self._least = OBJECT_SCORE if options.min_score is None else options.min_score

    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        """See `Detector.detect`. Images that the processor makes equally large share a batch, so none is padded."""
        check_images(images)
        prepared = [self._processor(images=[as_picture(image)], return_tensors="pt") for image in images]

        def results(outputs: Any, sizes: Tensor) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = self._processor.post_process_object_detection(outputs, self._least, sizes)
            return found

        each = run_in_groups(self._network, prepared, images, results)
        return [detections(one["boxes"], one["scores"], one["labels"], self.names) for one in each]
