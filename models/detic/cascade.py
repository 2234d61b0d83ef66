"""Three heads in a row, each on the boxes that the one before it has moved (Cai and Vasconcelos, Cascade R-CNN, 2018).

Eq. 6 of that paper: the last head's boxes are the result; sec. 4.1: its scores are the mean over all heads. Boxes are
moved alike for all classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from trackmill.models.detic.classifier import ZeroShotClassifier
from trackmill.models.detic.mask_head import MaskHead
from trackmill.models.detic.pooling import pool
from trackmill.models.detic.settings import OFFICIAL, Architecture, Flavour, Size

CELLS = 7
"""Of a side of a pooled region."""

STAGES = 3

LARGEST_LOG_SCALE = math.log(1000 / 16)
"""Of dw and dh: a stage makes sides at most 62.5 times larger."""


class CascadeHeads(nn.Module):
    """The heads of all stages, and the mask head (prefix in the state dict: `roi_heads.`)."""

    def __init__(self, architecture: Architecture, num_classes: int) -> None:
        super().__init__()
        stages = range(STAGES)
        self.box_head = nn.ModuleList(BoxHead(architecture.channels, architecture.hidden) for _ in stages)
        self.box_predictor = nn.ModuleList(
            BoxPredictor(architecture.hidden, architecture.embedding, num_classes) for _ in stages
        )
        self.mask_head = MaskHead(architecture.channels)

    @property
    def classifiers(self) -> list[ZeroShotClassifier]:
        """Of the three stages."""
        return [each.cls_score for each in self._predictors]

    @property
    def _predictors(self) -> list[BoxPredictor]:
        return list(cast(Iterable[BoxPredictor], self.box_predictor))

    def forward(
        self,
        levels: Sequence[Tensor],
        proposals: Sequence[Tensor],
        sizes: Sequence[Size],
        flavour: Flavour = OFFICIAL,
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the three stages over the proposals of all images at once.

        Args:
            levels: p3, p4, p5 and maybe more.
            proposals: B tensors (M_i, 4), not clipped.
            sizes: B sizes of the images before padding; the boxes that a stage gives are clipped to them, except the
                last one's.
            flavour: how deltas move boxes, and which level a region is pooled from.

        Returns:
            Boxes (sum M_i, 4) float32, one image after the other, and the features (sum M_i, hidden) of each stage,
            which `ZeroShotClassifier` takes.
        """
        counts = [len(each) for each in proposals]
        limits = torch.cat([each.new_tensor(_limit(size)).expand(len(each), 4) for each, size in zip(proposals, sizes)])
        boxes = torch.cat(list(proposals))
        features = []
        for stage, (head, predictor) in enumerate(zip(self.box_head, self._predictors, strict=True)):
            if stage:
                # Empty boxes stay in: at test time every proposal goes through all stages.
                boxes = torch.minimum(boxes.clamp(min=0), limits)
            feature = head(pool(levels, boxes.split(counts), CELLS, flavour))
            features.append(feature)
            deltas = predictor.deltas(feature)
            boxes = apply_deltas(boxes, deltas, flavour.delta_weights[stage], flavour.least_log_scale)
        return boxes, features


class BoxHead(nn.Module):
    """Two fully connected layers over a region."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels * CELLS * CELLS, hidden)
        self.fc2 = nn.Linear(hidden, hidden)

    def forward(self, regions: Tensor) -> Tensor:
        """(N, C, 7, 7) to (N, hidden)."""
        return torch.relu(self.fc2(torch.relu(self.fc1(regions.flatten(1)))))


class BoxPredictor(nn.Module):
    """A stage's classifier, and the deltas that move its boxes."""

    def __init__(self, hidden: int, embedding: int, num_classes: int) -> None:
        super().__init__()
        self.cls_score = ZeroShotClassifier(hidden, embedding, num_classes)
        self.bbox_pred = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 4))

    def deltas(self, features: Tensor) -> Tensor:
        """(N, hidden) to (N, 4) float32, also under autocast: a thousandth of a side is a pixel of a large box."""
        with torch.autocast(features.device.type, enabled=False):
            found: Tensor = self.bbox_pred(features.float())
        return found


def apply_deltas(
    boxes: Tensor, deltas: Tensor, weights: tuple[float, float, float, float], least_log_scale: float = -math.inf
) -> Tensor:
    """Move boxes (N, 4) xyxy float32 by deltas (N, 4): dx, dy in sides, dw, dh in logarithms (R-CNN, app. C).

    Deltas are divided by `weights`; dw and dh are then not below `least_log_scale`. Nothing is clipped.
    """
    dx, dy, dw, dh = (deltas / deltas.new_tensor(weights)).unbind(dim=1)
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    x, y = dx * width + (boxes[:, 0] + 0.5 * width), dy * height + (boxes[:, 1] + 0.5 * height)
    half_width = 0.5 * (dw.clamp(least_log_scale, LARGEST_LOG_SCALE).exp() * width)
    half_height = 0.5 * (dh.clamp(least_log_scale, LARGEST_LOG_SCALE).exp() * height)
    return torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], dim=1)


def clip(boxes: Tensor, size: Size) -> Tensor:
    """Boxes (N, 4) xyxy within an image of that height and width."""
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor(_limit(size)))


def _limit(size: Size) -> list[float]:
    height, width = size
    return [width, height, width, height]
