"""Whose checkpoint it is: one of Detic's that we have, another one of its model zoo, or something else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_SWIN = "backbone.bottom_up.patch_embed.proj.weight"
_SWIN_TABLE = "backbone.bottom_up.layers.0.blocks.0.attn.relative_position_bias_table"
_RESNET = "backbone.bottom_up.base.layer4.2.conv3.weight"
_RESNET_DEPTH = "backbone.bottom_up.base.layer3.{}.conv1.weight"
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
    """`swinb` or `r50`, by names and shapes that no other variant has; None for others. Names are official ones."""
    if not any(name.startswith(_HEAD) for name in tensors):
        return None
    if _SWIN in tensors and _SWIN_TABLE in tensors:
        own = tuple(tensors[_SWIN].shape)[:1] == (128,) and tuple(tensors[_SWIN_TABLE].shape) == (169, 4)
        return "swinb" if own else None
    if _RESNET in tensors and _RESNET_DEPTH.format(5) in tensors and _RESNET_DEPTH.format(6) not in tensors:
        return "r50"
    return None


def recognise_other(tensors: Mapping[str, Tensor]) -> str | None:
    """What a checkpoint is that `recognise_variant` does not know, in words; None: unknown."""
    own = "a Detic" if any(name.startswith(_HEAD) for name in tensors) else "a detector"
    for pattern, what in _OTHERS:
        if any(re.match(pattern, name) for name in tensors):
            return what.format(own=own)
    return None
