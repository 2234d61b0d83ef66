"""IP-MOT: tracking by query with learnt instance prompts. Importing this imports no framework."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from trackmill.models.ipmot.detector import DeformableDetr
    from trackmill.models.ipmot.model import IpMot
    from trackmill.models.ipmot.sizes import Conventions
    from trackmill.models.ipmot.variants import Variant


def load(
    variant: str | Variant,
    weights: str | os.PathLike[str] | Mapping[str, torch.Tensor] | None = None,
    *,
    detector_weights: str | os.PathLike[str] | Mapping[str, torch.Tensor] | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> IpMot:
    """A tracker's network ready for use, in evaluation mode.

    ```
    model = trackmill.models.ipmot.load("ip_mot", "ip_mot.safetensors")
    model = trackmill.models.ipmot.load("ip_mot", detector_weights="dab_deformable_detr_r50.pth")
    stream = Stream(model)                 # trackmill.models.ipmot.stream
    ```

    Args:
        variant: a name in `trackmill.models.ipmot.variants.VARIANTS`, or a variant of your own. A file of ours says
            which settings it was trained with; with a name these count.
        weights: path or URL of our `.safetensors`, or a state dict with the same names; with the variant `memotr`, a
            file of MeMOTR (DAB-Deformable-DETR). Or a detector's alone, see below; everything else is then fresh, which
            a warning says. Buffers that follow from the architecture may be absent. None: all weights fresh.
        detector_weights: of the detector alone, without the warning: a DAB-Deformable-DETR or Deformable-DETR in the
            published COCO layout (of 91 classes the person's row is taken) or in MeMOTR's, whose conventions have to be
            those of the variant; a whole file of ours, whose detector is taken; or official weights of its backbone.
        device: where the model is put.
        seed: of fresh weights; the same seed gives the same ones.

    Raises:
        ValueError: an unknown variant; a damaged file or one that holds more than tensors; weights of another variant,
            or trained with other conventions; a tensor that is missing, unexpected, of another shape, or holds NaN. The
            text names each.
        FileNotFoundError: there is no such file.
        OSError: a URL could not be fetched.
        ImportError: a package is missing.
    """
    from trackmill.models.ipmot.loading import load_model

    return load_model(variant, weights, detector_weights=detector_weights, device=device, seed=seed)


def load_detector(
    weights: str | os.PathLike[str] | Mapping[str, torch.Tensor],
    conventions: Conventions = "coco",
    *,
    heads: int = 8,
    device: str | torch.device = "cpu",
) -> DeformableDetr:
    """A detector alone, without tracks, in evaluation mode; its form and sizes follow from the weights.

    ```
    detector = trackmill.models.ipmot.load_detector("dab_deformable_detr_r50.pth")
    found = detector(images, masks)      # pred_logits (B, 300, 91), pred_boxes (B, 300, 4), aux: inner layers
    ```

    Args:
        weights: path or URL, or a state dict, with or without its wrapper ("model"): a DAB-Deformable-DETR or a
            Deformable-DETR with or without box refinement, on ResNet-50, in the published COCO layout; a tracker of
            MeMOTR or of ours, whose detector is taken. What is in the published files twice
            (`transformer.decoder.bbox_embed.*`) may be absent, as may buffers that follow from the architecture.
        conventions: under which the weights were trained, see `trackmill.models.ipmot.sizes.DetectorSizes`: `coco`, or
            `memotr` for MeMOTR's files.
        heads: attention heads, which no shape tells; 8 in all published files.
        device: where the detector is put.

    Raises:
        ValueError: a damaged file or one that holds more than tensors; another model's; a two-stage detector; weights
            of the other conventions, as far as names tell; a tensor that is missing, unexpected, of another shape, or
            holds NaN. The text names each.
        FileNotFoundError: there is no such file.
        OSError: a URL could not be fetched.
    """
    from trackmill.models.ipmot.detector_loading import load_detector as load_alone

    return load_alone(weights, conventions, heads=heads, device=device)
