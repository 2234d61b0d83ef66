"""Backbones by name, for models that read several feature maps of a picture: one form for all of them.

    backbone = build_backbone("dinov2_vits14")      # fresh weights; a key of `BACKBONES`
    maps = backbone(normalised)                     # list of (B, C_l, H_l, W_l), the finest or earliest first
    backbone.channels, backbone.strides             # (384, 384, 384, 384), (14, 14, 14, 14)

The network itself is `backbone.network`, and its state dict has its official names below `network.`. Files of official
weights are the business of `trackmill.models.backbones.official`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from trackmill.schemas.errors import InputError
from trackmill.schemas.names import nearest

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of R, G, B in 0..1; what all but EfficientNet-Lite0 and SSDLite were trained with."""


class MultiLevelBackbone(nn.Module):
    """A network that gives L maps of a picture.

    Batch norms always use their stored statistics, also in training mode: clips are few and look alike, so statistics
    of their own would be poor ones.

    Args:
        name: what it is called in `BACKBONES`.
        network: from normalised (B, 3, H, W) to the maps, (B, C_l, H_l, W_l) each.
        channels: C_l of each map, the finest or earliest first; the last one is the deepest.
        strides: pixels per cell of each map.
        mean, std: of R, G, B in 0..1, for normalisation: (value - mean) / std.
        divisor: sides of its input are multiples of this many pixels.
        read: how the maps are had from the network and a batch; None: by calling it.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        *,
        channels: tuple[int, ...],
        strides: tuple[int, ...],
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        divisor: int = 32,
        read: Callable[[nn.Module, Tensor], list[Tensor]] | None = None,
    ) -> None:
        super().__init__()
        self._read = read
        self.name, self.channels, self.strides = name, channels, strides
        self.mean, self.std, self.divisor = mean, std, divisor
        self.network = network
        self.train(self.training)

    def train(self, mode: bool = True) -> MultiLevelBackbone:
        """As in any module, but batch norms stay in evaluation mode."""
        super().train(mode)
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def normalise(self, images: Tensor) -> Tensor:
        """(..., 3, H, W) float RGB in 0..1 to the same shape, as `forward` takes it."""
        mean, std = images.new_tensor(self.mean).view(3, 1, 1), images.new_tensor(self.std).view(3, 1, 1)
        return (images - mean) / std

    def forward(self, images: Tensor) -> list[Tensor]:
        """The maps of normalised images.

        Args:
            images: (B, 3, H, W) float, see `normalise`; H and W are multiples of `divisor`.

        Returns:
            L maps (B, C_l, H / stride_l, W / stride_l).

        Raises:
            ValueError: a side is no multiple of `divisor`.
        """
        height, width = images.shape[-2:]
        if height % self.divisor or width % self.divisor:
            raise ValueError(
                f"{self.name} takes images whose sides are multiples of {self.divisor} pixels, not {height} x {width}: "
                "pad them"
            )
        return self.maps(images)

    def maps(self, images: Tensor) -> list[Tensor]:
        """As `forward`, without a look at the sides, for networks that take any."""
        return self._read(self.network, images) if self._read else list(self.network(images))


def build_backbone(name: str, *, seed: int | None = None) -> MultiLevelBackbone:
    """The backbone of that name with fresh weights, in evaluation mode, with gradients.

    Args:
        name: a key of `BACKBONES`.
        seed: of fresh weights; None: torch's generator as it is.

    Raises:
        ValueError: there is none; names the nearest.
        ImportError: a package is missing.
    """
    if name not in BACKBONES:
        advice = nearest(name, BACKBONES) or f"known: {', '.join(BACKBONES)}"
        raise InputError(f"no backbone is called {name!r}; {advice}")
    if seed is None:
        return BACKBONES[name]().eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BACKBONES[name]().eval()


def _dinov2(size: str, *, registers: bool = False) -> MultiLevelBackbone:
    from trackmill.models.backbones.dinov2 import PATCH, dinov2

    network = dinov2(size, registers=registers)
    name = f"dinov2_{size}{'_reg4' if registers else ''}"
    return MultiLevelBackbone(name, network, channels=(network.width,) * 4, strides=(PATCH,) * 4, divisor=PATCH)


def _dinov3(name: str) -> MultiLevelBackbone:
    from trackmill.models.backbones.dinov3 import PATCH, dinov3, read_maps

    network, width = dinov3(name)
    return MultiLevelBackbone(name, network, channels=(width,) * 4, strides=(PATCH,) * 4, divisor=PATCH, read=read_maps)


def _resnet50() -> MultiLevelBackbone:
    from trackmill.models.backbones.resnet import FrozenResNet

    return MultiLevelBackbone("resnet50", FrozenResNet(), channels=(512, 1024, 2048), strides=(8, 16, 32))


def _swin(name: str, width: int, depths: tuple[int, ...], heads: tuple[int, ...]) -> MultiLevelBackbone:
    from trackmill.models.backbones.swin import Swin

    network = Swin(7, width=width, depths=depths, heads=heads, spelling="original")
    channels = (2 * width, 4 * width, 8 * width)
    return MultiLevelBackbone(name, network, channels=channels, strides=(8, 16, 32))


def _lite0() -> MultiLevelBackbone:
    from trackmill.models.backbones.lite0 import lite0

    middle, deviation = 127 / 255, 128 / 255
    return MultiLevelBackbone(
        "lite0",
        lite0(),
        channels=(40, 112, 320),
        strides=(8, 16, 32),
        mean=(middle, middle, middle),
        std=(deviation, deviation, deviation),
    )


def _ssdlite_mobilenet() -> MultiLevelBackbone:
    from trackmill.models.backbones.ssdlite_mobilenet import MEAN, STD, SsdliteMobileNet, mobilenet_v2, read_maps

    return MultiLevelBackbone(
        "ssdlite_mobilenet",
        mobilenet_v2(),
        channels=SsdliteMobileNet().channels,
        strides=SsdliteMobileNet.strides,
        mean=MEAN,
        std=STD,
        read=read_maps,
    )


DINOV2 = tuple(f"dinov2_{size}{registers}" for size in ("vits14", "vitb14", "vitl14") for registers in ("", "_reg4"))
DINOV3 = tuple(
    f"vit_{size}_patch16_dinov3{biases}"
    for size in ("small", "small_plus", "base", "large", "huge_plus")
    for biases in ("", "_qkvb")
)
"""timm's names; those with `_qkvb` have biases where the others have none, see `trackmill.models.backbones.dinov3`."""

BACKBONES: dict[str, Callable[[], MultiLevelBackbone]] = {
    **{name: partial(_dinov2, name.split("_")[1], registers=name.endswith("_reg4")) for name in DINOV2},
    **{name: partial(_dinov3, name) for name in DINOV3},
    "resnet50": _resnet50,
    "swin_t": partial(_swin, "swin_t", 96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "swin_b": partial(_swin, "swin_b", 128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "detic_swinb": partial(_swin, "detic_swinb", 128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "lite0": _lite0,
    "ssdlite_mobilenet": _ssdlite_mobilenet,
}
"""What a model may stand on. Maps of a ResNet or a Swin are those of strides 8, 16, 32, as detectors read them."""
