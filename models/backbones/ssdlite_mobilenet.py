"""MobileNetV2 of the packaged person detector: timm's, padded as TensorFlow pads, with the package's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
from torch import Tensor, nn

from trackmill.models.weights.packaged_person import INSTALL as INSTALL
from trackmill.models.weights.packaged_person import is_packaged as is_packaged
from trackmill.models.weights.packaged_person import packaged_tensors

MEAN = STD = (0.5, 0.5, 0.5)
"""Of RGB in 0..1: the graph multiplies 0..255 by 2/255 and takes 1 away."""

_STAGES = (1, 2, 3, 4, 3, 3, 1)
"""Blocks of each stage; in the graph they are counted through."""

_NEXT_STRIDE = (3, 5)
"""Stages whose first block goes from stride 8 to 16, and from 16 to 32."""

_FIRST_BLOCK = {"depthwise": ("conv_dw", "bn1"), "project": ("conv_pw", "bn2")}
_OTHER_BLOCKS = {"expand": ("conv_pw", "bn1"), "depthwise": ("conv_dw", "bn2"), "project": ("conv_pwl", "bn3")}
_OUTER = {"Conv": ("conv_stem", "bn1"), "Conv_1": ("conv_head", "bn2")}
NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}

_TRUNK = "FeatureExtractor/MobilenetV2/"


def mobilenet_v2() -> Any:
    """timm's MobileNetV2 as TensorFlow computes it: `same` padding, epsilon 1e-3; fresh weights."""
    return timm.create_model("mobilenetv2_100", pad_type="same", bn_eps=1e-3, num_classes=0)


class SsdliteMobileNet(nn.Module):
    """From normalised images to maps of strides 8, 16 and 32.

    Args:
        expanded: maps are what the next block expands them to, 192, 576 and 1280 channels after a ReLU6, which the
            detector's own heads read; otherwise the blocks' outputs, 32, 96 and 320 channels without one.
    """

    strides = (8, 16, 32)
    mean, std = MEAN, STD
    divisor = 32

    def __init__(self, *, expanded: bool = False) -> None:
        super().__init__()
        self.network = mobilenet_v2()
        self.channels = (192, 576, 1280) if expanded else (32, 96, 320)
        self._expanded = expanded

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps of (B, 3, H, W), normalised by `mean` and `std`: (B, C, H / 8, W / 8), then of strides 16 and 32."""
        outputs, expansions = trunk_maps(self.network, images)
        return expansions if self._expanded else outputs


def trunk_maps(network: Any, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs of the last blocks of strides 8, 16 and 32, and the expansions of those outputs.

    Args:
        network: see `mobilenet_v2`.
        images: (B, 3, H, W), normalised.

    Returns:
        Two lists of three (B, C, ceil(H / stride), ceil(W / stride)): of 32, 96 and 320, and of 192, 576 and 1280
        channels.
    """
    stages: list[Any] = list(network.blocks)
    maps = network.bn1(network.conv_stem(images))
    outputs, expansions = [], []
    for number, stage in enumerate(stages):
        if number in _NEXT_STRIDE:
            # timm's block, opened: a third of the way is what the detector reads.
            first = stage[0]
            outputs.append(maps)
            expansions.append(first.bn1(first.conv_pw(maps)))
            maps = first.bn3(first.conv_pwl(first.bn2(first.conv_dw(expansions[-1]))))
            stage = stage[1:]
        maps = stage(maps)
    outputs.append(maps)
    expansions.append(network.bn2(network.conv_head(maps)))
    return outputs, expansions


def read_maps(network: Any, images: Tensor) -> list[Tensor]:
    """The first list of `trunk_maps`."""
    return trunk_maps(network, images)[0]


def packaged_mobilenet() -> dict[str, Tensor]:
    """Weights of the package under the names of `mobilenet_v2`, for `trackmill.models.weights.fit`.

    Raises:
        MissingPackage: the package, or tensorboard, is missing; the text says what to type.
        BadWeights: the package's file is damaged or another version's.
    """
    return trunk_tensors(packaged_tensors())


def trunk_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of the graph's tensors those of MobileNetV2, under timm's names."""
    return {
        timm_name(name.removeprefix(_TRUNK)): values
        for name, values in tensors.items()
        if name.startswith(_TRUNK) and not name.startswith(f"{_TRUNK}layer_19")
    }


def timm_name(name: str) -> str:
    """timm's name (`blocks.1.1.bn1.weight`) for the graph's (`expanded_conv_2/expand/BatchNorm/gamma`)."""
    layer, *rest = name.split("/")
    if layer in _OUTER:
        conv, norm = _OUTER[layer]
    else:
        index = int(layer.removeprefix("expanded_conv").removeprefix("_") or 0)
        part, *rest = rest
        conv, norm = (_OTHER_BLOCKS if index else _FIRST_BLOCK)[part]
        stage = 0
        while index >= _STAGES[stage]:
            index -= _STAGES[stage]
            stage += 1
        conv, norm = (f"blocks.{stage}.{index}.{each}" for each in (conv, norm))
    return f"{norm}.{NORM[rest[-1]]}" if rest[0] == "BatchNorm" else f"{conv}.weight"
