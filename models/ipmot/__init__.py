"""IP-MOT: tracking by query with learnt instance prompts. Importing this imports no framework."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from trackmill.models.ipmot.model import IpMot
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
