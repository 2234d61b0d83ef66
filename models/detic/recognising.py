"""Whose checkpoint it is: one of Detic's that we have, another one of its model zoo, or something else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_BACKBONE = "backbone.bottom_up."

_TELLING: dict[str, dict[str, tuple[int, ...]]] = {
    "swinb": {
        "patch_embed.proj.weight": (128, 3, 4, 4),
        "layers.0.blocks.1.attn.relative_position_bias_table": (169, 4),
        "layers.2.blocks.17.attn.relative_position_bias_table": (169, 16),
        "layers.3.blocks.1.mlp.fc1.weight": (4096, 1024),
        "norm3.weight": (1024,),
    },
    "r50": {
        "base.conv1.weight": (64, 3, 7, 7),
        "base.layer1.2.conv3.weight": (256, 64, 1, 1),
        "base.layer2.3.conv3.weight": (512, 128, 1, 1),
        "base.layer3.5.conv3.weight": (1024, 256, 1, 1),
        "base.layer4.2.conv3.weight": (2048, 512, 1, 1),
    },
}
"""Tensors that no other variant has together. A few may be missing: then it is said that they are."""

_DEEPER = f"{_BACKBONE}base.layer3.6.conv1.weight"
_HEAD = "proposal_generator.centernet_head."

_OTHERS = (
    # The beginning of a name or more, as a pattern, and what has such names.
    (r"detr\.|transformer\.(encoder|decoder)\.", "a Detic on Deformable DETR"),
    (r"proposal_generator\.rpn_head\..*|roi_heads\.res5\.", "a Detic with a region proposal network (COCO, R50-C4)"),
    (
        r"backbone\.bottom_up\.base\.(stem|stages)[_.\d]|backbone\.bottom_up\.(downsample_layers|stages)\.",
        "{own} on a ConvNeXt",
    ),
    (r"backbone\.bottom_up\.base\.layer1\.0\.conv2\.", "{own} on a ResNet of another depth (R18?)"),
    (r"backbone\.bottom_up\.patch_embed\.", "{own} on another Swin"),
    (r"backbone\.bottom_up\.", "{own} on another backbone"),
    (r"image_encoder\.|(detector\.)?backbone\.pos_embed", "SAM"),
    (r"detector\.backbone\.stages\.", "MASA without Detic's heads: detic_masa.pth has them, exports of ours do not"),
    (r"masa_adapter\.", "MASA on something else than Detic"),
    (r"visual\.|transformer\.resblocks\.", "CLIP: that is what text_weights takes"),
)


def recognise_variant(tensors: Mapping[str, Tensor]) -> str | None:
    """`swinb` or `r50`, by names and shapes of most tensors; None for others. Names are official ones."""
    if not any(name.startswith((_HEAD, "roi_heads.box_head.")) for name in tensors):
        return None
    return recognise_backbone(tensors)


def recognise_backbone(tensors: Mapping[str, Tensor]) -> str | None:
    """As `recognise_variant`, whatever stands on the backbone, unless that is no part of ours."""
    if _DEEPER in tensors or any(name.startswith("proposal_generator.rpn_head.") for name in tensors):
        return None
    for variant, shapes in _TELLING.items():
        found = [tensors.get(_BACKBONE + name) for name in shapes]
        fits = [each is not None and tuple(each.shape) == shape for each, shape in zip(found, shapes.values())]
        if 2 * sum(fits) > len(fits):
            return variant
    return None


def recognise_other(tensors: Mapping[str, Tensor]) -> str | None:
    """What a checkpoint is that `recognise_variant` does not know, in words; None: unknown."""
    own = "a Detic" if any(name.startswith(_HEAD) for name in tensors) else "a detector"
    for pattern, what in _OTHERS:
        if any(re.match(pattern, name) for name in tensors):
            return what.format(own=own)
    return None
