"""SSDLite on MobileNetV2 (Sandler et al., CVPR 2018, section 6.2), as TensorFlow's object detection API builds it.

Everything up to non-maximum suppression: two maps of the trunk and four smaller ones, a head on each, anchors, boxes.
`B` images, `A` anchors (1917 at 300 x 300), `K` classes and the background before them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from timm.layers import create_conv2d  # type: ignore[attr-defined]
from torch import Tensor, nn

from trackmill.models.backbones.ssdlite_mobilenet import NORM, mobilenet_v2, trunk_maps, trunk_tensors

SIZE = 300
"""Sides in pixels that the network was trained at. An anchor is so many pixels large, whatever the size."""

_SCALES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)
"""Of anchors, as parts of 300 pixels, by map; the last one only takes part in the mean of the map before."""

_RATIOS = (1.0, 2.0, 0.5, 3.0, 0.3333)
"""Width to height of anchors. A further one is square, of the geometric mean of two scales."""

_FIRST_MAP = ((0.1, 1.0), (0.2, 2.0), (0.2, 0.5))
"""(scale, ratio) of the anchors of the finest map, which has fewer."""

_CODED_BY = (10.0, 10.0, 5.0, 5.0)
"""What shifts of the centre (y, x) and logarithms of (height, width) are multiplied by."""

_TRUNK_CHANNELS = (576, 1280)
_EXTRA_CHANNELS = ((1280, 256, 512), (512, 128, 256), (256, 128, 256), (256, 64, 128))
"""Of the smaller maps: from, between, to."""


class SsdliteNetwork(nn.Module):
    """From normalised images to box encodings and class logits, in the order of `anchors`.

    Args:
        num_classes: without the background; the packaged weights know one.
    """

    def __init__(self, num_classes: int = 1) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.trunk = mobilenet_v2()
        self.extras = nn.ModuleList(_extra(*channels) for channels in _EXTRA_CHANNELS)
        channels = (*_TRUNK_CHANNELS, *(last for _, _, last in _EXTRA_CHANNELS))
        counts = [len(shapes) for shapes in _shapes()]
        self.boxes = nn.ModuleList(_head(c, 4 * n) for c, n in zip(channels, counts))
        self.classes = nn.ModuleList(_head(c, (num_classes + 1) * n) for c, n in zip(channels, counts))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
        """What the heads say.

        Args:
            images: (B, 3, H, W) in -1..1.

        Returns:
            Box encodings (B, A, 4) as (y, x, height, width), class logits (B, A, 1 + K), and the height and width of
            each of the six maps.
        """
        _, expansions = trunk_maps(self.trunk, images)
        maps = expansions[1:]
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        encodings = [_rows(head(each), 4) for head, each in zip(self.boxes, maps)]
        logits = [_rows(head(each), self.num_classes + 1) for head, each in zip(self.classes, maps)]
        return torch.cat(encodings, 1), torch.cat(logits, 1), [(each.shape[2], each.shape[3]) for each in maps]


def anchors(maps: Sequence[tuple[int, int]], height: int, width: int) -> Tensor:
    """Anchors of all maps.

    Args:
        maps: height and width of each map, as `SsdliteNetwork` gives them.
        height, width: of the network's input in pixels.

    Returns:
        (A, 4) float32: centre (y, x), height and width, as parts of the input.
    """
    rows = []
    for (cells_y, cells_x), shapes in zip(maps, _shapes()):
        y = (torch.arange(cells_y) + 0.5) / cells_y
        x = (torch.arange(cells_x) + 0.5) / cells_x
        centres = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1)  # (cells_y, cells_x, 2)
        sides = torch.tensor([(s / math.sqrt(r), s * math.sqrt(r)) for s, r in shapes])  # (anchors of a cell, 2)
        sides = sides * torch.tensor([SIZE / height, SIZE / width])
        cells = torch.cat(
            [
                centres[:, :, None].expand(-1, -1, len(shapes), -1),
                sides[None, None].expand(cells_y, cells_x, -1, -1),
            ],
            dim=-1,
        )
        rows.append(cells.reshape(-1, 4))
    return torch.cat(rows)


def decode(encodings: Tensor, priors: Tensor) -> Tensor:
    """Boxes of encodings.

    Args:
        encodings: (..., A, 4).
        priors: (A, 4), see `anchors`.

    Returns:
        (..., A, 4) `xyxy` as parts of the input; they may leave it.
    """
    coded = encodings / encodings.new_tensor(_CODED_BY)
    centres = coded[..., :2] * priors[:, 2:] + priors[:, :2]
    sides = coded[..., 2:].exp() * priors[:, 2:]
    return torch.cat([(centres - sides / 2).flip(-1), (centres + sides / 2).flip(-1)], dim=-1)


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """Bilinear as in TensorFlow 1 without `align_corners`: pixel i of the result lies at i * (old / new).

    Centres of pixels are not halves of pixels here, so pictures move by up to half a pixel of the smaller one; the
    network was trained so.

    Args:
        images: (B, C, H, W) of any kind of number.
        height, width: of the result.

    Returns:
        (B, C, height, width) float32, not rounded.
    """
    for axis, size in ((3, width), (2, height)):
        old = images.shape[axis]
        if old == size:
            continue
        places = torch.arange(size, device=images.device, dtype=torch.float32) * (old / size)
        low = places.floor().long().clamp_(max=old - 1)
        part = (places - low).reshape([-1 if each == axis else 1 for each in range(4)])
        first = images.index_select(axis, low).float()
        images = first + (images.index_select(axis, (low + 1).clamp_(max=old - 1)).float() - first) * part
    return images.float()


def ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The graph's tensors under the names of `SsdliteNetwork`.

    Args:
        tensors: see `trackmill.models.weights.packaged_person.packaged_tensors`.
    """
    named = {f"trunk.{name}": values for name, values in trunk_tensors(tensors).items()}
    for name, values in tensors.items():
        *scope, last = name.split("/")
        if scope[-1] == "BatchNorm":
            scope, place, last = scope[:-1], 1, NORM[last]
        else:
            place, last = 0, "bias" if last == "biases" else "weight"
        layer = scope[-1]
        if layer.startswith("layer_19_"):
            # layer_19_1_Conv2d_2_1x1_256, layer_19_2_Conv2d_2_3x3_s2_512_depthwise, layer_19_2_Conv2d_2_3x3_s2_512
            part = 0 if layer.startswith("layer_19_1") else 1 if layer.endswith("_depthwise") else 2
            named[f"extras.{int(layer.split('_')[4]) - 2}.{part}.{place}.{last}"] = values
        elif scope[0].startswith("BoxPredictor_"):
            head = "boxes" if layer.startswith("BoxEncoding") else "classes"
            inner = f"0.{place}" if layer.endswith("_depthwise") else "1"
            named[f"{head}.{scope[0].removeprefix('BoxPredictor_')}.{inner}.{last}"] = values
    return named


def _shapes() -> list[list[tuple[float, float]]]:
    """(scale, ratio) of the anchors of a cell, of each of the six maps."""
    others = [
        [*((scale, ratio) for ratio in _RATIOS), (math.sqrt(scale * following), 1.0)]
        for scale, following in itertools.pairwise(_SCALES[1:])
    ]
    return [list(_FIRST_MAP), *others]


def _conv(inner: int, outer: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution with TensorFlow's `same` padding, batch norm, ReLU6."""
    conv = create_conv2d(inner, outer, kernel, stride=stride, padding="same", groups=groups)  # type: ignore[no-untyped-call]
    return nn.Sequential(conv, nn.BatchNorm2d(outer, eps=1e-3), nn.ReLU6(inplace=True))


def _extra(inner: int, between: int, outer: int) -> nn.Sequential:
    """A map of half the size: 1 x 1, 3 x 3 of each channel with stride 2, 1 x 1."""
    depthwise = _conv(between, between, 3, stride=2, groups=between)
    return nn.Sequential(_conv(inner, between, 1), depthwise, _conv(between, outer, 1))


def _head(inner: int, outer: int) -> nn.Sequential:
    """3 x 3 of each channel, then 1 x 1 with a bias."""
    return nn.Sequential(_conv(inner, inner, 3, groups=inner), nn.Conv2d(inner, outer, 1))


def _rows(values: Tensor, width: int) -> Tensor:
    """(B, n * width, H, W) to (B, H * W * n, width)."""
    return values.permute(0, 2, 3, 1).reshape(len(values), -1, width)


def scores(logits: Tensor) -> Tensor:
    """(..., K) of class logits (..., 1 + K): each class for itself, without the background."""
    return F.sigmoid(logits[..., 1:])
