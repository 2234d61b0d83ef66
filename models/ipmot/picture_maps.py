"""From a picture to the maps that the encoder reads: the backbone under its published names, and the projections."""

from __future__ import annotations

import math

from torch import Tensor, nn

from trackmill.models.backbones.multilevel import MultiLevelBackbone, build_backbone
from trackmill.models.ipmot.sizes import DetectorSizes

FROZEN = {
    "resnet50": ("conv1", "layer1"),  # as published: what sees edges and colours does not learn
    "ssdlite_mobilenet": ("conv_head", "bn2"),  # its maps do not depend on them
}
"""Parts of backbones that are not trained."""


class PictureMaps(nn.Module):
    """The backbone under the names of the published files: maps of pictures of any size, which it pads itself.

    Args:
        name: a key of `trackmill.models.backbones.multilevel.BACKBONES`.
        divisor: sides are padded to multiples of it, and of what the backbone asks for.
    """

    def __init__(self, name: str, divisor: int) -> None:
        super().__init__()
        whole = build_backbone(name)
        self.body = whole.network
        self._hidden = (whole,)  # in a tuple it is no part, since its names are not the published ones
        self.channels, self.mean, self.std = whole.channels, whole.mean, whole.std
        # A ResNet takes sides of any length, and the published detector gives it such.
        self.divisor = divisor if name == "resnet50" else math.lcm(divisor, whole.divisor)
        for part in FROZEN.get(name, ()):
            self.body.get_submodule(part).requires_grad_(False)

    @property
    def whole(self) -> MultiLevelBackbone:
        """The backbone as others load weights into it; it shares all parameters."""
        return self._hidden[0]

    def train(self, mode: bool = True) -> PictureMaps:
        """As in any module, but batch norms stay in evaluation mode."""
        super().train(mode)
        self.whole.train(mode)
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) whose sides are multiples of `divisor` to maps (B, C_l, h_l, w_l), the finest first."""
        return self.whole.maps(images)


def projections(channels: tuple[int, ...], sizes: DetectorSizes) -> nn.ModuleList:
    """1 x 1 convolutions of the backbone's maps, and 3 x 3 ones of stride 2 for levels that it has not."""
    layers, width = nn.ModuleList(), sizes.hidden
    deepest = channels[-1]
    for index in range(sizes.levels):
        if index < len(channels):
            convolution = nn.Conv2d(channels[index], width, 1)
        else:
            convolution = nn.Conv2d(deepest, width, 3, stride=2, padding=1)
            deepest = width
        nn.init.xavier_uniform_(convolution.weight)
        assert convolution.bias is not None
        nn.init.zeros_(convolution.bias)
        layers.append(nn.Sequential(convolution, nn.GroupNorm(sizes.norm_groups, width)))
    return layers
