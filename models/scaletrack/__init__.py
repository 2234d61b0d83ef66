"""ScaleTrack in plain PyTorch: the paper's variants and a small one of ours. Importing this imports no framework."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from trackmill.models.scaletrack.model import ScaleTrack
    from trackmill.models.scaletrack.variants import Variant


def load(
    variant: str | Variant,
    weights: str | os.PathLike[str] | Mapping[str, torch.Tensor] | None = None,
    *,
    backbone_weights: str | os.PathLike[str] | Mapping[str, torch.Tensor] | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> ScaleTrack:
    """A model ready for use, in evaluation mode.

    ```
    model = trackmill.models.scaletrack.load("scaletrack_s", "scaletrack_s.safetensors")
    embeddings = model(frames, boxes)
    stream = model.stream()
    embedding = stream.step(frame, boxes)
    ```

    Args:
        variant: a name in `trackmill.models.scaletrack.variants.VARIANTS`, or a variant of your own. A file of ours
            says which settings it was trained with; with a name these count.
        weights: path or URL of our `.safetensors`, or a state dict with the same names. Or official weights of the
            backbone alone (DINOv2's `dinov2_vits14_pretrain.pth`, a DINOv3, torchvision's or timm's ResNet-50 or Swin,
            Detic's checkpoint for scaletrack_unified_detic); everything else is then fresh, which a warning says.
            `"imagenet"` and `"packaged"` are the weights that a package holds for EfficientNet-Lite0 and for the
            person detector's MobileNetV2. None: all weights fresh.
        backbone_weights: official weights of the backbone alone, in any of these forms, without the warning.
        device: where the model is put.
        seed: of fresh weights; the same seed gives the same ones.

    Raises:
        ValueError: an unknown variant; a damaged file or one that holds more than tensors; weights of another variant
            or of another backbone; a tensor that is missing, unexpected, of another shape, or holds NaN. The text names
            each.
        FileNotFoundError: there is no such file.
        OSError: a URL could not be fetched.
        ImportError: a package is missing.
    """
    from trackmill.models.scaletrack.loading import load_model

    return load_model(variant, weights, backbone_weights=backbone_weights, device=device, seed=seed)
