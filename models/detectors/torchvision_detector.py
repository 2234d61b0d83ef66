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

from trackmill.models.detectors.base import Detector
from trackmill.models.weights.fit import fit
from trackmill.schemas.config import Settings
from trackmill.schemas.detections import Detections
from trackmill.schemas.errors import InputError
from trackmill.schemas.masks import crop_mask
from trackmill.schemas.names import nearest

_ADVICE = "give the state dict of this very network, and the names of its classes if they are not COCO's"


class TorchvisionSettings(Settings):
    """Which detector, and what it gives. Other keys go to torchvision's builder: `min_size`, ..."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field("fasterrcnn_resnet50_fpn_v2", description="As in `torchvision_names()`.")
    names: tuple[str, ...] | None = Field(
        None, description="Name of each class, the first being the background; left out: the 91 of COCO."
    )
    min_score: float = Field(0.05, description="Detections below it are left out.")
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
        min_score: detections below it are left out.
        mask_threshold: of networks with masks; a pixel above it belongs to the object. Official: 0.5.
        device: `cpu`, `cuda` or the like.
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
        min_score: float = 0.05,
        mask_threshold: float = 0.5,
        device: torch.device | str = "cpu",
        **options: Any,
    ) -> None:
        published = get_model_weights(_known(name)).DEFAULT.meta["categories"]
        self.names = tuple(published if names is None else names)
        self.category_ids = tuple(range(len(self.names)))
        self._min_score = min_score
        self._mask_threshold = mask_threshold
        self._device = torch.device(device)
        # Without `weights_backbone=None` torchvision would fetch the backbone's weights from the internet.
        self._model = get_model(name, weights=None, weights_backbone=None, num_classes=len(self.names), **options)
        _check_options(self._model, name, options)
        if weights is not None:
            fit(self._model, weights, f"torchvision's {name}", advice=_ADVICE)
        self._model.eval().to(self._device)

    Config = TorchvisionSettings

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
        try:
            return cls(options.pop("name"), tensors, device=device, **options)
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

    @torch.inference_mode()
    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        """See `Detector.detect`; boxes lie inside the image, best first."""
        if not images:
            return []
        batch = [torch.from_numpy(np.ascontiguousarray(image)).to(self._device) for image in images]
        outputs = self._model([image.permute(2, 0, 1).float() / 255 for image in batch])  # (3, H, W) each
        return [self._detections(output) for output in outputs]

    def _detections(self, output: dict[str, torch.Tensor]) -> Detections:
        kept = (output["scores"] >= self._min_score) & torch.isfinite(output["boxes"]).all(dim=1)
        masks = None
        if "masks" in output:
            pixels = (output["masks"][kept, 0] > self._mask_threshold).cpu().numpy()  # (N, H, W)
            masks = tuple(crop_mask(mask) for mask in pixels)
        return Detections(
            boxes=output["boxes"][kept].float().cpu().numpy(),
            scores=output["scores"][kept].float().cpu().numpy(),
            labels=output["labels"][kept].cpu().numpy(),
            names=self.names,
            masks=masks,
        )


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
