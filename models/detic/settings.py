"""What decides which of the network's boxes become detections, and the sizes of its variants. Plain data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal

from trackmill.schemas.errors import InputError

Size = tuple[int, int]
"""Height and width in pixels."""

EMBEDDING = 512
"""Numbers of a class's vector: those of CLIP ViT-B/32's text tower."""

STRIDES = (8, 16, 32, 64, 128)
"""Pixels per cell of p3 to p7. Proposals come from all of them, regions are pooled from the first three."""

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
"""Of R, G, B in 0..255. The configurations of Detic state them; checkpoints do not."""

DIVISOR = 32
"""Images are padded right and below to a multiple of this, in pixels."""


@dataclass(frozen=True, kw_only=True)
class DetectionSettings:
    """How scores of boxes become detections. Defaults: the released demo, with a threshold of 0.3.

    Args:
        score_threshold: detections with a score not above it are dropped. Released: 0.02 for LVIS's evaluation, 0.5 in
            the demo; 0.01 in MASA; ScaleTrack mines negatives with 0.3.
        nms_iou: of two boxes of one class with a larger IoU, the one of higher score stays.
        class_agnostic_nms: suppress boxes whatever their class, as MASA does; otherwise one box may appear under many
            classes.
        max_boxes: the best so many of an image stay. Released: 300; MASA: 100.
        one_class_per_proposal: of each proposal only its best class counts (all, where several are equally good), as in
            the demo.

    Raises:
        ValueError: a number out of its range; names it.
    """

    score_threshold: float = 0.3
    nms_iou: float = 0.5
    class_agnostic_nms: bool = False
    max_boxes: int = 300
    one_class_per_proposal: bool = False

    def __post_init__(self) -> None:
        for name in ("score_threshold", "nms_iou"):
            value = getattr(self, name)
            if not (_is_number(value) and math.isfinite(value) and 0 <= value <= 1):
                raise InputError(f"{name}: should be from 0 to 1, found {value!r}")
        require_count(self.max_boxes, "max_boxes")


def require_count(value: object, name: str) -> None:
    """Refuse what is no whole number from 1 on.

    Raises:
        InputError: names it.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name}: should be a whole number from 1 on, found {value!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


@dataclass(frozen=True, kw_only=True)
class Flavour:
    """Constants in which Detic's own code and mmdetection's copy differ; weights of both are otherwise the same.

    Args:
        delta_weights: by which dx, dy, dw, dh of each of the three stages are divided.
        least_log_scale: dw and dh are not below it.
        region_side, region_level, first_level, epsilon: a region of a square root of its area s is pooled from the
            level `floor(region_level + log2(s / region_side + epsilon))`, where p3 is `first_level`.
        ties: of proposals, whether those stay too that score like the last of the best 256.
    """

    delta_weights: tuple[tuple[float, float, float, float], ...] = (
        (10.0, 10.0, 5.0, 5.0),
        (20.0, 20.0, 10.0, 10.0),
        (30.0, 30.0, 15.0, 15.0),
    )
    least_log_scale: float = -math.inf
    region_side: float = 224.0
    region_level: int = 4
    first_level: int = 3
    epsilon: float = 1e-8
    ties: bool = True


OFFICIAL = Flavour()
"""Detic's own code, on detectron2."""

MMDET = Flavour(
    delta_weights=(*OFFICIAL.delta_weights[:2], (1 / 0.033, 1 / 0.033, 1 / 0.067, 1 / 0.067)),
    least_log_scale=-math.log(1000 / 16),
    region_side=112.0,
    region_level=0,
    first_level=0,
    epsilon=1e-6,
    ties=False,
)
"""mmdetection 3.3.0, and so MASA: `projects/Detic_new`, `delta_xywh_bbox_coder.py`, `single_level_roi_extractor.py`."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Sizes of a network. `VARIANTS` has the official ones; tests make smaller ones.

    Args:
        name: of the variant.
        backbone: `swin` or `resnet`.
        width, depths, heads, window: of Swin, see `trackmill.models.backbones.swin.Swin`.
        layers: of ResNet, blocks of each stage.
        channels: of p3 to p7 and of the heads' convolutions; a multiple of 32, the groups of their norms.
        hidden: of the fully connected layers.
        embedding: of the vectors of classes.
    """

    name: str
    backbone: Literal["swin", "resnet"]
    width: int = 128
    depths: tuple[int, ...] = (2, 2, 18, 2)
    heads: tuple[int, ...] = (4, 8, 16, 32)
    window: int = 7
    layers: tuple[int, int, int, int] = (3, 4, 6, 3)
    channels: int = 256
    hidden: int = 1024
    embedding: int = EMBEDDING

    @property
    def in_channels(self) -> tuple[int, ...]:
        """Of the backbone's maps of strides 8, 16 and 32."""
        if self.backbone == "swin":
            return tuple(self.width << stage for stage in (1, 2, 3))
        return (512, 1024, 2048)


VARIANTS: dict[str, Architecture] = {
    "swinb": Architecture(name="swinb", backbone="swin"),
    "r50": Architecture(name="r50", backbone="resnet"),
}
"""What `load(variant=...)` takes."""
