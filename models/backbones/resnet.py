"""MASA's ResNet-50: torchvision's, with the stride in the first 1 x 1 convolution of a stage ("caffe" style)."""

from __future__ import annotations

from torch import Tensor
from torchvision.models.resnet import Bottleneck, ResNet


class ResNet50(ResNet):  # type: ignore[misc]  # torchvision has no annotations
    """Returns the maps of all four stages. Official checkpoints use torchvision's state-dict names, as here."""

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
