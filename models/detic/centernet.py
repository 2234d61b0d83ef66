"""Proposals of CenterNet2: every cell says how likely an object's centre is there, and how far its four sides are.

Zhou et al., "Probabilistic two-stage detection", 2021, sec. 4.3 and app. A: CenterNet on a pyramid, of one class. Read
from `centernet.py` and `centernet_head.py` at the commit that Detic pins. The peak test of CenterNet (3 x 3 maximum) is
off in all configurations of Detic; NMS does its work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import nms

from trackmill.models.detic.settings import STRIDES

_GROUPS = 32
_CONVOLUTIONS = 4
_LEAST_SIDE = 0.01
"""In pixels; x1 >= x0 + this, and so for y, even where both distances are 0."""


@dataclass(frozen=True, kw_only=True)
class ProposalSettings:
    """Which cells become proposals. Defaults: the released test settings.

    Args:
        heatmap_threshold: a cell counts if the sigmoid of its logit is above this.
        per_level: the best so many cells of each level go on.
        nms_iou: of two boxes with a larger IoU, the one of higher score stays.
        kept: the best so many proposals of an image stay.
        ties: whether those that score like the last of them stay too.
    """

    heatmap_threshold: float = 1e-4
    per_level: int = 1000
    nms_iou: float = 0.9
    kept: int = 256
    ties: bool = True


class ProposalGenerator(nn.Module):
    """Holds the head under its name in checkpoints: `proposal_generator.centernet_head.`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.centernet_head = CenterNetHead(channels)

    def forward(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """As `CenterNetHead.forward`."""
        heatmaps, distances = self.centernet_head(levels)
        return heatmaps, distances


class CenterNetHead(nn.Module):
    """Shared by all levels: four convolutions with group norm, then a heatmap and four distances.

    Args:
        channels: C of the levels, a multiple of 32.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        tower: list[nn.Module] = []
        for _ in range(_CONVOLUTIONS):
            tower += [nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(_GROUPS, channels), nn.ReLU()]
        self.bbox_tower = nn.Sequential(*tower)
        self.bbox_pred = nn.Conv2d(channels, 4, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in STRIDES)
        self.agn_hm = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Levels (B, C, H_l, W_l), p3 first.

        Returns:
            Logits of the heatmap (B, 1, H_l, W_l), and distances (B, 4, H_l, W_l) of the left, upper, right and lower
            side from the cell's location, at least 0 and in strides of the level, for each level.
        """
        logits, distances = [], []
        for level, scale in zip(levels, self.scales, strict=True):
            hidden = self.bbox_tower(level)
            # In float32 also under autocast: half precision would move the sides of large boxes by pixels.
            with torch.autocast(hidden.device.type, enabled=False):
                hidden = hidden.to(self.agn_hm.weight.dtype)
                logits.append(self.agn_hm(hidden))
                distances.append(torch.relu(scale(self.bbox_pred(hidden))))
        return logits, distances


class Scale(nn.Module):
    """A factor of a level's distances."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, values: Tensor) -> Tensor:
        """Any shape."""
        return values * self.scale


def cell_locations(height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """(height * width, 2) float32 x, y in pixels of the cells of a map, row by row: `cell * stride + stride // 2`."""
    y = torch.arange(height, device=device, dtype=torch.float32) * stride + stride // 2
    x = torch.arange(width, device=device, dtype=torch.float32) * stride + stride // 2
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1).flatten(0, 1)


def proposals(
    logits: Sequence[Tensor], distances: Sequence[Tensor], settings: ProposalSettings | None = None
) -> list[tuple[Tensor, Tensor]]:
    """Boxes of the best cells, after NMS over all levels.

    Args:
        logits: (B, 1, H_l, W_l) of each level, p3 first.
        distances: (B, 4, H_l, W_l) of each level, in strides.
        settings: None: the released test settings.

    Returns:
        For each of the B images boxes (M, 4) float32 xyxy in pixels of the padded image, which may reach beyond it (the
        first stage of the cascade pools them like that), and scores (M,) in 0..1, best first. The score is the square
        root of the heatmap's sigmoid. M may be 0, and more than `kept` where scores are equal.
    """
    settings = settings or ProposalSettings()
    boxes, scores = [], []  # of each level: (B, K_l, 4), (B, K_l)
    for logit, distance, stride in zip(logits, distances, STRIDES, strict=True):
        height, width = logit.shape[-2:]
        heat = logit.float().sigmoid().flatten(1)  # (B, H * W)
        # Stable: where cells are equally likely, as on a black picture, the upper left ones are taken on any device.
        heat, best = (each[:, : settings.per_level] for each in heat.sort(dim=1, descending=True, stable=True))
        sides = distance.float().flatten(2).transpose(1, 2) * stride  # (B, H * W, 4)
        sides = sides.gather(1, best[:, :, None].expand(-1, -1, 4))
        places = cell_locations(height, width, stride, logit.device)[best]  # (B, K_l, 2)
        low, high = places - sides[..., :2], places + sides[..., 2:]
        boxes.append(torch.cat([low, torch.maximum(high, low + _LEAST_SIDE)], dim=-1))
        scores.append(heat)
    every_box, every_score = torch.cat(boxes, dim=1), torch.cat(scores, dim=1)
    counted = (every_score > settings.heatmap_threshold) & every_box.isfinite().all(dim=-1)
    roots = every_score.sqrt()
    return [_best(box[keep], root[keep], settings) for box, root, keep in zip(every_box, roots, counted, strict=True)]


def _best(boxes: Tensor, scores: Tensor, settings: ProposalSettings) -> tuple[Tensor, Tensor]:
    """NMS, then the best, perhaps with all that score like the last of them."""
    keep = nms(boxes, scores, settings.nms_iou)
    if not settings.ties:
        keep = keep[: settings.kept]
    boxes, scores = boxes[keep], scores[keep]
    if len(scores) > settings.kept:
        tied = scores >= scores[settings.kept - 1]
        boxes, scores = boxes[tied], scores[tied]
    return boxes, scores
