"""torchvision's detectors (Faster and Mask R-CNN, RetinaNet, FCOS, SSD) behind the `Detector` contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from torchvision.models import detection, get_model, get_model_builder, get_model_weights, list_models

from trackmill.models.detectors.base import Detector, check_images
from trackmill.models.detectors.options import OPTIONS, DetectorOptions, apply_options, known_classes
from trackmill.models.weights.fit import fit
from trackmill.schemas.detections import Detections
from trackmill.schemas.errors import InputError
from trackmill.schemas.masks import crop_mask
from trackmill.schemas.names import nearest

_ADVICE = "give the state dict of this very network, and the names of its classes if they are not COCO's"


LEAST_SCORE = 0.05
"""Detections of every network that score less are left out, unless asked for."""

_OWN_SCORES = {"fcos": 0.2, "ssdlite": 0.001, "ssd": 0.01}
"""Score that a network of torchvision itself asks for, by how its name begins; 0.05 for the others."""

_MOST_BEFORE_CLASSES = 1000
"""Detections that a network gives where only some classes are wanted, so that others do not take their places."""


class TorchvisionSettings(DetectorOptions):
    """Which detector, and what it gives. Other keys go to torchvision's builder: `min_size`, ...

    Left out, `nms_iou` and `max_boxes` are torchvision's own: 0.5 and 100 for Faster and Mask R-CNN.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field("fasterrcnn_resnet50_fpn_v2", description="As in `torchvision_names()`.")
    names: tuple[str, ...] | None = Field(
        None, description="Name of each class, the first being the background; left out: the 91 of COCO."
    )
    min_score: float = Field(
        LEAST_SCORE, description="Detections below it are left out; below torchvision's own threshold only if given."
    )
    mask_threshold: float = Field(0.5, description="Of networks with masks; a pixel above it belongs to the object.")


def torchvision_names() -> list[str]:
    """Names of the detectors that the installed torchvision has."""
    return list(map(str, list_models(module=detection)))


def published_weights(name: str) -> str:
    """URL of torchvision's own weights of a detector, trained on COCO.

    Raises:
        ValueError: torchvision has no detector of that name.
    """
    return str(get_model_weights(_known(name)).DEFAULT.url)


class TorchvisionDetector(Detector):
    """One of torchvision's detectors; it resizes images itself.

    Args:
        name: as in `torchvision_names()`, such as `fasterrcnn_resnet50_fpn_v2`.
        weights: state dict of just this network; None: random weights, for trying things out.
        names: name of each class, the first being the background; None: the 91 of COCO, as in torchvision's weights.
        min_score: detections below it are left out; None: those below 0.05 and below the network's own threshold.
        mask_threshold: of networks with masks; a pixel above it belongs to the object. Official: 0.5.
        device: `cpu`, `cuda` or the like.
        asked: `classes`, `nms_iou`, `class_agnostic_nms` and `max_boxes`. NMS is the network's own, with this IoU;
            class-agnostic NMS comes behind it.
        options: passed to torchvision's builder, such as `min_size` or `box_detections_per_img`.

    Raises:
        ValueError: an unknown name, or weights of another network; names the keys that differ.
    """

    def __init__(
        self,
        name: str,
        weights: Mapping[str, torch.Tensor] | None = None,
        *,
        names: Sequence[str] | None = None,
        min_score: float | None = None,
        mask_threshold: float = 0.5,
        device: torch.device | str = "cpu",
        asked: DetectorOptions | None = None,
        **options: Any,
    ) -> None:
        published = get_model_weights(_known(name)).DEFAULT.meta["categories"]
        self.names = tuple(published if names is None else names)
        self.category_ids = tuple(range(len(self.names)))
        self._mask_threshold = mask_threshold
        self._device = torch.device(device)
        # Without `weights_backbone=None` torchvision would fetch the backbone's weights from the internet.
        self._model = get_model(name, weights=None, weights_backbone=None, num_classes=len(self.names), **options)
        _check_options(self._model, name, options)
        self._kept_labels: NDArray[np.bool_] | None = None
        self._options = self._ask(min_score, asked or DetectorOptions(), f"torchvision's {name}")
        if weights is not None:
            fit(self._model, weights, f"torchvision's {name}", advice=_ADVICE)
        self._model.eval().to(self._device)

    Config = TorchvisionSettings
    applies = frozenset(OPTIONS)

    @classmethod
    def build(
        cls,
        config: TorchvisionSettings,
        tensors: Mapping[str, torch.Tensor] | None = None,
        device: torch.device | str = "cpu",
    ) -> TorchvisionDetector:
        """What the registry builds; see `trackmill.models.registry`.

        Raises:
            ValueError: an unknown name or setting, or tensors of another network.
        """
        options = dict(config)
        asked = DetectorOptions(**{key: options.pop(key) for key in OPTIONS if key != "min_score"})
        # What was left out does not move the network's own threshold.
        given = "min_score" in config.model_fields_set
        options["min_score"] = config.min_score if given else None
        try:
            return cls(options.pop("name"), tensors, device=device, asked=asked, **options)
        except TypeError as error:
            raise InputError(f"torchvision's {config.name}: {error}") from None

    @classmethod
    def recognise(cls, tensors: Mapping[str, torch.Tensor]) -> str | None:
        """None: names and shapes do not tell torchvision's detectors apart for certain."""
        return None

    @classmethod
    def default_weights(cls, config: TorchvisionSettings) -> str:
        """URL of torchvision's own weights, trained on COCO."""
        return published_weights(config.name)

    @classmethod
    def implementation(cls, config: TorchvisionSettings) -> dict[str, str]:
        """What decides its detections beside settings, weights and libraries, for fingerprints.

        Scores below the network's own threshold were once never given, whatever was asked for.
        """
        if "min_score" in config.model_fields_set and config.min_score < _own_score(config.name):
            return {"least_score": "as asked"}
        return {}

    @torch.inference_mode()
    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        """See `Detector.detect`; boxes lie inside the image, best first.

        Raises:
            InputError: an image is not (H, W, 3) uint8.
        """
        check_images(images)
        if not images:
            return []
        batch = [torch.from_numpy(np.require(image, requirements=("C", "W"))).to(self._device) for image in images]
        outputs = self._model([image.permute(2, 0, 1).float() / 255 for image in batch])  # (3, H, W) each
        return [self._detections(output) for output in outputs]

    def _detections(self, output: dict[str, torch.Tensor]) -> Detections:
        kept = torch.isfinite(output["boxes"]).all(dim=1)
        if self._options.min_score is not None:
            kept &= output["scores"] >= self._options.min_score
        masks = None
        if "masks" in output:
            pixels = (output["masks"][kept, 0] > self._mask_threshold).cpu().numpy()  # (N, H, W)
            masks = tuple(crop_mask(mask) for mask in pixels)
        found = Detections(
            boxes=output["boxes"][kept].float().cpu().numpy(),
            scores=output["scores"][kept].float().cpu().numpy(),
            labels=output["labels"][kept].cpu().numpy(),
            names=self.names,
            masks=masks,
        )
        return apply_options(found, self._options, self._kept_labels)

    def _ask(self, min_score: float | None, asked: DetectorOptions, where: str) -> DetectorOptions:
        """Set the network's own thresholds, and return what is left to be done behind it."""
        network: Any = getattr(self._model, "roi_heads", self._model)
        if min_score is not None and min_score < network.score_thresh:
            # It takes what is greater, and compares in 32 bits.
            network.score_thresh = float(np.nextafter(np.float32(min_score), np.float32(-np.inf)))
        agnostic = bool(asked.class_agnostic_nms)
        if asked.nms_iou is not None:
            network.nms_thresh = max(network.nms_thresh, asked.nms_iou) if agnostic else asked.nms_iou
        most = asked.max_boxes or network.detections_per_img
        if asked.classes is not None:
            self._kept_labels = known_classes(asked.classes, self.names, where)
        behind = asked.classes is not None or agnostic
        network.detections_per_img = max(most, _MOST_BEFORE_CLASSES) if behind else most
        return DetectorOptions(
            min_score=LEAST_SCORE if min_score is None else min_score,
            nms_iou=(network.nms_thresh if asked.nms_iou is None else asked.nms_iou) if agnostic else None,
            class_agnostic_nms=asked.class_agnostic_nms,
            max_boxes=most,
        )


def _own_score(name: str) -> float:
    return next((score for start, score in _OWN_SCORES.items() if name.startswith(start)), 0.05)


def _check_options(model: torch.nn.Module, name: str, options: Mapping[str, Any]) -> None:
    # torchvision's networks swallow keywords that they do not know.
    known = {*signature(type(model).__init__).parameters, *signature(get_model_builder(name)).parameters}
    for key in options:
        if key not in known:
            advice = nearest(key, known - {"self", "kwargs"}) or "see torchvision's documentation"
            raise InputError(f"torchvision's {name}: unknown setting {key!r}; {advice}")


def _known(name: str) -> str:
    known = torchvision_names()
    if name not in known:
        advice = nearest(name, known) or f"known: {', '.join(known)}"
        raise InputError(f"detector {name!r}: torchvision has none of that name; {advice}")
    return name
