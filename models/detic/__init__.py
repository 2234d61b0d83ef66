"""Detic in plain torch and torchvision: boxes of any class that has a name. Importing this imports no framework.

Zhou et al., "Detecting Twenty-thousand Classes using Image-level Supervision", ECCV 2022, in the form that its official
checkpoints have: CenterNet2 proposals, a cascade of three heads, a classifier made of CLIP's text vectors.

    detector = trackmill.models.detic.load("Detic_LCOCOI21k_CLIP_SwinB_896b32_4x_ft4x_max-size.pth", "lvis")
    (found,) = detector.detect([image])      # (H, W, 3) uint8 RGB -> `trackmill.schemas.detections.Detections`

The files, in the order of the computation: `preprocessing` (resize, normalise, pad), `pyramid` (backbone, p3 to p7),
`centernet` (proposals), `pooling` and `cascade` (three heads), `classifier` (scores of classes), `selection`
(threshold, NMS, the best), `mask_head` and `mask_pasting`. `network` puts them together, `model` is what users call,
`loading` reads checkpoints, `detector` is the entry in the registry. `vocabulary` holds classes; `mmdet_names` renames
MASA's copy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from trackmill.models.detic.model import Detic


def load(
    weights: str | os.PathLike[str] | Mapping[str, torch.Tensor],
    vocabulary: Any = None,
    variant: str | None = None,
    device: str | torch.device = "cpu",
    *,
    masks: bool = False,
    text_weights: str | os.PathLike[str] | None = None,
    dtype: str = "float32",
    compile: bool = False,
) -> Detic:
    """A detector ready for use.

    Args:
        weights: path or URL of an official `.pth`, or a state dict, with or without wrappers (`{"model": ...}`), with
            the official names or those of MASA's copy (mmdet's, with or without `detector.` before them).
        vocabulary: the classes. None: those of the checkpoint, named `class 0`, `class 1`, ... . Else whatever
            `trackmill.models.detic.vocabulary.as_vocabulary` takes: a `Vocabulary`, vectors (C, 512), a path or URL of
            them, `"lvis"`, or names of classes, which CLIP's text tower turns into vectors.
        variant: "swinb" or "r50"; None: what the tensors say.
        device: where the network is put: `cpu`, `cuda`, `cuda:1`, ...
        masks: also draw the mask of each detection, which takes time for each of them.
        text_weights: path or URL of CLIP ViT-B/32, for names of classes; see `trackmill.pipeline.vocabulary`.
        dtype: `float32` as released, or `bfloat16` or `float16`, for GPUs. Boxes and classes are computed in float32
            always. With drawn weights on one picture, of 300 detections bfloat16 finds 95 % again (scores 0.0014 apart
            on average, at most 0.021), float16 99 % (0.0002, 0.0008); `python -m tests.benchmarks.detic` measures it.
        compile: compile backbone and heads with torch.compile; the first batch of each size takes a minute.

    Raises:
        ValueError: a damaged file or one that holds more than tensors; a checkpoint of another architecture or variant;
            a tensor that is missing, unexpected, of another shape, or holds NaN; a vocabulary that does not fit. The
            text names each.
        FileNotFoundError: there is no such file.
        ImportError: a package is missing; says what to type.
    """
    from trackmill.models.detic.loading import load_model

    return load_model(
        weights,
        vocabulary,
        variant,
        device,
        masks=masks,
        text_weights=text_weights,
        dtype=dtype,
        compile=compile,
    )
