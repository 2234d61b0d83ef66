"""ResNet-50 (He et al., CVPR 2016), torchvision's: MASA's, trained and with strides of its own, and Detic's, frozen."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import FrozenBatchNorm2d


class ResNet50(ResNet):  # type: ignore[misc]  # torchvision has no annotations
    """MASA's: the stride of a stage is in its first 1 x 1 convolution ("caffe" style).

    Returns the maps of all four stages. Official checkpoints use torchvision's state-dict names, as here.
    """

    def __init__(self) -> None:
        super().__init__(Bottleneck, [3, 4, 6, 3])
        del self.avgpool, self.fc
        for stage in (self.layer2, self.layer3, self.layer4):
            stage[0].conv1.stride, stage[0].conv2.stride = stage[0].conv2.stride, stage[0].conv1.stride

    def forward(self, batch: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised to maps of 256, 512, 1024, 2048 channels at strides 4, 8, 16, 32."""
        values = self.maxpool(self.relu(self.bn1(self.conv1(batch))))
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            values = stage(values)
            maps.append(values)
        return maps


class FrozenResNet(ResNet):  # type: ignore[misc]  # torchvision has no annotations
    """Detic's: timm 0.5's `resnet50`, the stride of a stage in its 3 x 3 convolution, batch norms that never change.

    Returns the maps of the last three stages. timm's state-dict names are torchvision's.

    Args:
        layers: number of blocks of each stage; (3, 4, 6, 3) is ResNet-50.
    """

    def __init__(self, layers: tuple[int, int, int, int] = (3, 4, 6, 3)) -> None:
        super().__init__(Bottleneck, list(layers), norm_layer=FrozenBatchNorm)
        del self.avgpool, self.fc

    def forward(self, batch: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised to maps of 512, 1024, 2048 channels at strides 8, 16, 32."""
        values = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(batch)))))
        maps = []
        for stage in (self.layer2, self.layer3, self.layer4):
            values = stage(values)
            maps.append(values)
        return maps


class FrozenBatchNorm(FrozenBatchNorm2d):  # type: ignore[misc]  # torchvision has no annotations
    """torchvision's, four buffers and no parameters (eps 1e-5), in one pass over the map instead of two."""

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return F.batch_norm(maps, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
