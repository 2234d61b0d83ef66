"""torchvision's detectors (Faster and Mask R-CNN, RetinaNet, FCOS, SSD) behind the `Detector` contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.models import detection, get_model, get_model_weights, list_models

from trackmill.models.detectors.base import Detector
from trackmill.schemas.detections import Detections
from trackmill.schemas.errors import InputError
from trackmill.schemas.masks import crop_mask

_SHOWN = 5


def torchvision_names() -> list[str]:
    """Names of the detectors that the installed torchvision has."""
    return list_models(module=detection)


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
        ValueError: an unknown name, or weights of another network; names the first keys that differ.
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
        if weights is not None:
            _load(self._model, weights, name)
        self._model.eval().to(self._device)

    @torch.inference_mode()
    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        """See `Detector.detect`; boxes lie inside the image, best first."""
        if not images:
            return []
        batch = [torch.from_numpy(np.ascontiguousarray(image)).to(self._device) for image in images]
        found = self._model([image.permute(2, 0, 1).float() / 255 for image in batch])  # (3, H, W) each
        return [self._detections(output) for output in found]

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


def _known(name: str) -> str:
    known = torchvision_names()
    if name not in known:
        raise InputError(f"detector {name!r}: torchvision has none of that name; known: {', '.join(known)}")
    return name


def _load(model: torch.nn.Module, weights: Mapping[str, torch.Tensor], name: str) -> None:
    expected = model.state_dict()
    differing = [key for key in expected if key not in weights]
    differing += [key for key in weights if key not in expected]
    differing += [key for key in expected if key in weights and expected[key].shape != weights[key].shape]
    if differing:
        shown = ", ".join(differing[:_SHOWN]) + (", ..." if len(differing) > _SHOWN else "")
        raise InputError(
            f"weights: {len(differing)} entries are missing, unknown or of another shape in {name} ({shown}); give the "
            "state dict of this very network, and the names of its classes if they are not COCO's"
        )
    model.load_state_dict(weights)
