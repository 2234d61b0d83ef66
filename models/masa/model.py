"""MASA: a backbone, an adapter that turns its maps into features for matching, and three heads on these features.

Li et al., "Matching Anything by Segmenting Anything", CVPR 2024. State-dict names are those of the official
checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trackmill.models.backbones.lite0 import lite0
from trackmill.models.backbones.resnet import ResNet50
from trackmill.models.backbones.sam import SamDetector
from trackmill.models.backbones.swin import SwinDetector
from trackmill.models.layers.checked_boxes import checked_boxes
from trackmill.models.layers.colours import colour_map
from trackmill.models.masa.bands import BandHead
from trackmill.models.masa.fusion import Fusion
from trackmill.models.masa.heads import RoiHead, RpnHead, TrackHead, roi_align_levels
from trackmill.models.masa.padding import normalise_and_pad
from trackmill.models.masa.pyramid import Fpn, SimpleFpn
from trackmill.models.masa.rpn_inference import DetectionSettings, RpnSettings, roi_detections, rpn_proposals
from trackmill.models.masa.variants import Variant


class Masa(nn.Module):
    """One variant of MASA with fresh weights; `trackmill.models.masa.load` returns one with trained weights.

    A frozen detector stays in evaluation mode and without gradients, also when the model is in training mode. The batch
    norms of a trained backbone always use their stored statistics, as released.

    Args:
        variant: the parts of the model.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        if variant.frozen:
            self.detector = _detector(variant).requires_grad_(False)
        else:
            self.backbone = ResNet50() if variant.backbone == "resnet50" else lite0()
        pyramid = SimpleFpn if variant.pyramid == "simple" else Fpn
        self.masa_adapter = nn.Sequential(
            pyramid(variant.in_channels, variant.channels, variant.num_levels),
            Fusion(variant.fusion, variant.channels, compatible_offsets=variant.compatible_offsets),
        )
        self.rpn_head = RpnHead(variant.channels)
        self.roi_head = RoiHead(variant.channels, variant.roi_convs, variant.head_channels)
        self.track_head: TrackHead | BandHead
        if variant.track_head == "bands":
            self.track_head = BandHead(variant.in_channels, variant.strides, variant.bands)
            if self.track_head.dimensions != variant.embed_channels:
                raise ValueError(f"{variant.name}: embed_channels must be {self.track_head.dimensions} with this head")
        else:
            self.track_head = TrackHead(variant.channels, variant.head_channels, variant.embed_channels)
        self.train(self.training)

    def train(self, mode: bool = True) -> Masa:
        """As in any module, but the detector or the backbone's batch norms stay in evaluation mode."""
        super().train(mode)
        if self.variant.frozen:
            self.detector.eval()
        else:
            for module in self.backbone.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def prepare(self, images: Tensor) -> Tensor:
        """Normalised and padded copies of `images` on the model's device and in its float type.

        Args:
            images: (B, 3, H, W) float, R, G, B in 0..255.

        Returns:
            (B, 3, H', W').

        Raises:
            ValueError: see `trackmill.models.masa.padding.normalise_and_pad`.
        """
        # Normalise first, then convert: half precision holds whole numbers up to 255 exactly, normalised ones not.
        batch = normalise_and_pad(images.to(self._own.device), self.variant)
        return batch.to(self._own.dtype)

    def backbone_maps(self, batch: Tensor) -> list[Tensor]:
        """The backbone's maps of a prepared batch, the finest first; then that of colours if it is read.

        The map of colours has no gradient: nothing before it is learnt.
        """
        maps: list[Tensor] = self.detector(batch) if self.variant.frozen else self.backbone(batch)
        if self.variant.track_head == "bands" and self.variant.bands.colours:
            with torch.no_grad():
                mean = batch.new_tensor(self.variant.mean).view(3, 1, 1)
                std = batch.new_tensor(self.variant.std).view(3, 1, 1)
                maps = [*maps, colour_map(batch * std + mean)]
        return maps

    def features(self, images: Tensor) -> list[Tensor]:
        """The adapter's L levels (B, C, H_l, W_l) of pictures as `prepare` takes them, with gradients.

        With a band head, the backbone's maps follow the levels in the list, because that head reads them.
        """
        return self.adapt(self.backbone_maps(self.prepare(images)))

    def adapt(self, maps: list[Tensor]) -> list[Tensor]:
        """As `features`, from the maps of `backbone_maps`."""
        levels: list[Tensor] = self.masa_adapter(maps[: len(self.variant.in_channels)])
        return levels + maps if self.variant.track_head == "bands" else levels

    def track_features(self, images: Tensor) -> list[Tensor]:
        """The part of `features` that `embed_levels` needs; with a band head the adapter is not run."""
        maps = self.backbone_maps(self.prepare(images))
        return maps if self.variant.track_head == "bands" else self.adapt(maps)

    def rpn(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness logits (B, 3, H_l, W_l) and box deltas (B, 12, H_l, W_l) of the levels from `features`."""
        logits, deltas = self.rpn_head(levels[: self.variant.num_levels])
        return logits, deltas

    @torch.no_grad()
    def embed(self, images: Tensor, boxes: Sequence[Tensor]) -> list[Tensor]:
        """Appearance embeddings of the given boxes, without gradients; losses take `embed_levels`.

        Boxes may reach beyond the image, where cells have the values of the padding or the border. Nothing is resized
        or clipped.

        Args:
            images: (B, 3, H, W) float, R, G, B in 0..255.
            boxes: B tensors (N_i, 4), xyxy in pixels of `images`; N_i may be 0.

        Returns:
            B tensors (N_i, D) of the model's dtype, not of unit length.

        Raises:
            ValueError: the numbers of images and box tensors differ; boxes have another shape, are not finite, or are
                inverted (x1 < x0 or y1 < y0); or as `prepare`.
        """
        boxes = checked_boxes(boxes, len(images))
        if not sum(map(len, boxes)):
            empty = self.prepare(images).new_zeros(0, self.variant.embed_channels)  # raises for bad images
            return [empty for _ in boxes]
        return self.embed_levels(self.track_features(images), boxes)

    def embed_levels(self, levels: Sequence[Tensor], boxes: Sequence[Tensor]) -> list[Tensor]:
        """As `embed`, from the levels of `features` or `track_features`, with gradients. Boxes are not checked."""
        if isinstance(self.track_head, BandHead):
            embeddings = self.track_head(self.track_head.pool(levels[-len(self.track_head.strides) :], boxes))
        else:
            embeddings = self.track_head(self.pool(levels, boxes))
        return list(embeddings.split([len(each) for each in boxes]))

    def pool(self, levels: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Pool boxes, each from the level for its size: regions (sum N_i, C, 7, 7), one image after the other."""
        used = self.variant.num_roi_levels
        return roi_align_levels(levels[:used], self.variant.strides[:used], boxes)

    @torch.no_grad()
    def propose(
        self,
        images: Tensor,
        *,
        proposals: RpnSettings | None = None,
        detections: DetectionSettings | None = None,
    ) -> list[tuple[Tensor, Tensor]]:
        """Detect class-agnostic objects with the proposal head and the object prior head.

        Args:
            images: (B, 3, H, W) float, R, G, B in 0..255.
            proposals, detections: None: the released test settings.

        Returns:
            For each image boxes (M, 4) xyxy float32 in its pixels and scores (M,), best first.

        Raises:
            ValueError: as `prepare`.
        """
        height, width = images.shape[-2:]
        return self.propose_levels(self.features(images), height, width, proposals=proposals, detections=detections)

    @torch.no_grad()
    def propose_levels(
        self,
        levels: Sequence[Tensor],
        height: int,
        width: int,
        *,
        proposals: RpnSettings | None = None,
        detections: DetectionSettings | None = None,
    ) -> list[tuple[Tensor, Tensor]]:
        """As `propose`, from the levels of `features` for images of `height` x `width` pixels before padding."""
        logits, deltas = self.rpn(levels)
        regions = [boxes for boxes, _ in rpn_proposals(logits, deltas, self.variant.strides, height, width, proposals)]
        scores, moves = self.roi_head(self.pool(levels, regions))
        return roi_detections(scores, moves, regions, height, width, detections)

    @property
    def _own(self) -> Tensor:
        return next(self.track_head.parameters())


def _detector(variant: Variant) -> nn.Module:
    match variant.backbone:
        case "sam_vit_b":
            return SamDetector("vit_b")
        case "sam_vit_h":
            return SamDetector("vit_h")
        case "swin_b_window7":
            return SwinDetector(7)
        case "swin_b_window12":
            return SwinDetector(12)
    raise ValueError(f"{variant.name}: no detector has the backbone {variant.backbone!r}")
