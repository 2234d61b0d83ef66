"""The track head of small models: it pools a region into horizontal bands of the backbone's maps.

Even without training, the vertical layout of a region distinguishes objects better than its mean does. So this head
starts as that plain feature, and training learns a linear map that all bands share, a mean, and a gain for each band.
This head is ours, not the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from trackmill.models.layers import colours
from trackmill.models.masa.band_layout import SIX_BANDS, BandLayout

TEMPERATURE = 0.1
"""Embeddings have the length 1 / sqrt(TEMPERATURE), so their dot product is cosine / TEMPERATURE. Losses and trackers
use them as they are."""


class BandHead(nn.Module):
    """Embeddings of regions of several maps (state-dict prefix `track_head.`).

    Args:
        channels: C of each map, the finest first.
        strides: pixels per cell of each map.
        layout: how a region is cut into bands. Where it has colours, `trackmill.models.layers.colours.colour_map` of
            the picture is one map more, the last one.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], layout: BandLayout = SIX_BANDS) -> None:
        super().__init__()
        self.layout = layout
        self.channels, self.strides = tuple(channels), tuple(strides)
        weights: tuple[float, ...] = (1.0,) * (len(self.channels) - 1) + (layout.coarsest,)
        if layout.colours:
            self.channels, self.strides = (*self.channels, colours.CHANNELS), (*self.strides, colours.STRIDE)
            weights = (*weights, layout.colours)
        self.weights = weights
        width = sum(self.channels)
        self.mean = nn.Parameter(torch.zeros(width))
        self.mix = nn.Linear(width, width, bias=False)
        self.gain = nn.Parameter(torch.ones(layout.bands))
        nn.init.eye_(self.mix.weight)

    @property
    def dimensions(self) -> int:
        """D of the embedding."""
        return self.layout.bands * sum(self.channels)

    def pool(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Pool regions into bands: RoIAlign on every map, mean over the columns, each map's part of its length.

        Args:
            maps: the backbone's maps, each (B, C_l, H_l, W_l), and the map of colours if the layout has it.
            boxes: B tensors (N_i, 4), xyxy in pixels of the network's input. Boxes may reach beyond the image or be
                empty.

        Returns:
            (sum N_i, bands, sum C_l), one image after the other.
        """
        counts = torch.tensor([len(each) for each in boxes])
        images = torch.repeat_interleave(torch.arange(len(counts)), counts)
        flat = torch.cat([each.to(maps[0].device) for each in boxes])
        return self.pool_flat(maps, flat, images.to(flat.device))

    def pool_flat(self, maps: Sequence[Tensor], boxes: Tensor, image_of_box: Tensor) -> Tensor:
        """As `pool`, for boxes (N, 4) of all images in any order, with the number of each one's image: (N,) int64."""
        # Coordinates stay float32 if the maps are half precision, see `trackmill.models.masa.heads.roi_align_levels`.
        precise = torch.promote_types(maps[0].dtype, torch.float32)
        return self.pool_regions(maps, torch.cat([image_of_box[:, None].to(precise), boxes.to(precise)], dim=1))

    def pool_regions(self, maps: Sequence[Tensor], regions: Tensor) -> Tensor:
        """The same for regions (N, 5) float32: number of the image, x0, y0, x1, y1."""
        precise = regions.dtype
        layout, parts = self.layout, []
        if layout.margin:
            image, x0, y0, x1, y1 = regions.unbind(dim=1)
            cut = layout.margin * (x1 - x0)
            regions = torch.stack([image, x0 + cut, y0, x1 - cut, y1], dim=1)
        for index, (level, stride, weight) in enumerate(zip(maps, self.strides, self.weights, strict=True)):
            size = (layout.bands, layout.columns)
            cells = roi_align(level.to(precise), regions, size, 1.0 / stride, layout.samples, aligned=True)
            bands = cells.mean(dim=3)  # (N, C, bands)
            if layout.colours and index == len(self.channels) - 1:
                # The cosine of square roots compares histograms by what they share (Bhattacharyya), so that one large
                # part, such as a gray road behind everybody, does not decide alone.
                bands = bands.clamp(min=0).sqrt()
            unit = F.normalize(bands.flatten(1), dim=1).view_as(bands)
            parts.append((unit if weight == 1 else weight * unit).transpose(1, 2))
        return torch.cat(parts, dim=2)

    def forward(self, bands: Tensor) -> Tensor:
        """Pooled regions (N, bands, C) to embeddings (N, bands * C) of length 1 / sqrt(`TEMPERATURE`)."""
        own = self.mix.weight.dtype
        mixed: Tensor = self.mix(bands.to(own) - self.mean) * self.gain[:, None]
        embeddings: Tensor = F.normalize(mixed.flatten(1), dim=1) * TEMPERATURE**-0.5
        return embeddings
