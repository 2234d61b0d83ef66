"""ScaleTrack: embeddings of boxes from their frame and from the frames before it.

"Scaling Open-World Multiple Object Tracking", section 3.4. A backbone, which stays as it is, gives maps of a frame; the
encoder adapts them; the decoder makes an embedding of each box, with the help of the maps of earlier frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trackmill.models.backbones.multilevel import MultiLevelBackbone, build_backbone
from trackmill.models.embedders.base import Embedder
from trackmill.models.layers.colours import colour_map
from trackmill.models.masa.bands import BandHead
from trackmill.models.scaletrack.area import Area
from trackmill.models.scaletrack.decoder import Decoder, Queries
from trackmill.models.scaletrack.encoder import Encoder
from trackmill.models.scaletrack.frames import prepare
from trackmill.models.scaletrack.pooling import pooled_regions
from trackmill.models.scaletrack.stream import Stream
from trackmill.models.scaletrack.variants import Variant

if TYPE_CHECKING:
    from trackmill.models.detectors.frame_scaling import FrameScaling

FRAMES_AT_ONCE = 8
"""Frames that `ScaleTrack.forward` encodes together; memory grows with it."""


class ScaleTrack(nn.Module):
    """One variant with fresh weights; `trackmill.models.scaletrack.load` returns one with trained weights.

    A frozen backbone stays in evaluation mode and without gradients, also when the model is in training mode.

    Args:
        variant: the parts of the model.
        backbone: a backbone of your own in place of the one that the variant names.

    Raises:
        ValueError: the variant's levels or side do not fit the backbone.
    """

    def __init__(self, variant: Variant, backbone: MultiLevelBackbone | None = None) -> None:
        super().__init__()
        self.variant: Variant = variant
        self.backbone = build_backbone(variant.backbone) if backbone is None else backbone
        self.backbone.requires_grad_(not variant.frozen)
        if variant.side % self.backbone.divisor:
            raise ValueError(
                f"{variant.name}: side must be a multiple of {self.backbone.divisor} for the backbone "
                f"{variant.backbone}, not {variant.side}"
            )
        self._levels = _levels(variant, len(self.backbone.channels))
        channels = [self.backbone.channels[index] for index in self._levels]
        self._strides = [self.backbone.strides[index] for index in self._levels]
        self.encoder = Encoder(variant, channels, self._strides) if variant.encoder or variant.decoder else None
        width = variant.channels if self.encoder is not None else channels[-1]
        self.decoder = Decoder(variant, len(channels) + variant.extra_levels) if variant.decoder else None
        self.heads: nn.ModuleList | None = None
        if variant.head:
            self.heads = nn.ModuleList(_head(width, variant.dimensions) for _ in range(variant.num_layers))
        self.dimensions = variant.dimensions if variant.head else width
        """D of the embeddings."""
        self.band_head: BandHead | None = None
        if variant.bands:
            self.band_head = BandHead(channels, self._strides, variant.band_layout)
            self.band_weight = nn.Parameter(torch.full((variant.num_layers,), variant.bands_start))
            self.dimensions += self.band_head.dimensions
        self.train(self.training)

    default_tracker = "scaletrack"
    """Name of the rule that links what it embeds, in `trackmill.models.association.TRACKERS`."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def divisor(self) -> int:
        """Sides of its input are multiples of so many pixels."""
        return self.backbone.divisor

    def train(self, mode: bool = True) -> ScaleTrack:
        """As in any module, but a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.variant.frozen:
            self.backbone.eval()
        return self

    def forward(self, frames: Tensor, boxes: Sequence[Tensor]) -> list[Tensor]:
        """Embeddings of the boxes of a clip, or of a whole video, with gradients.

        Frame t sees the frames before it, and none after it; the first frame is the first of its video. Frames are
        resized to the network's side. Boxes are cut at the border of the frame: what lies outside does not count.

        Args:
            frames: (T, 3, H, W) float RGB 0..1, in the order of time.
            boxes: T tensors (N_t, 4) xyxy in pixels of `frames`; N_t may be 0, and boxes may be empty or leave the
                frame.

        Returns:
            T tensors (N_t, D) of unit length.

        Raises:
            ValueError: frames have another shape, dtype or range; the numbers of frames and box tensors differ; boxes
                have another shape, are not finite, or are inverted (x1 < x0 or y1 < y0).
        """
        ready = prepare(frames, boxes, self.variant, self.device)
        results: list[Tensor] = []
        earlier: Tensor | None = None
        starts = torch.tensor([0, *ready.counts]).cumsum(0).tolist()
        for first in range(0, len(frames), FRAMES_AT_ONCE):
            last = min(first + FRAMES_AT_ONCE, len(frames))
            own = slice(starts[first], starts[last])
            maps = self.backbone_maps(ready.frames[first:last], ready.sizes)
            layers, earlier = self.encode_maps(
                maps, ready.boxes[own], ready.frame_of_box[own] - first, ready.sizes, earlier=earlier
            )
            results += layers[-1].split(ready.counts[first:last])
        return results

    def stream(self) -> Stream:
        """The same frame by frame, for a video that is still running: see `Stream.step`."""
        return Stream(self)

    def embedder(self, scaling: FrameScaling | None = None, device: torch.device | str | None = None) -> Embedder:
        """The same for trackers, which have uint8 frames: see `trackmill.models.embedders.base.EmbeddingNetwork`.

        Args:
            scaling: at what size frames are looked at; None: the variant's side.
            device: where the weights are, which the model knows itself.
        """
        from trackmill.models.scaletrack.embedder import stream_embedder

        return stream_embedder(self, scaling)

    def encode(self, frames: Tensor, boxes: Tensor, frame_of_box: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Embeddings of the boxes of several clips, of every decoder layer; for training. Clips never mix.

        Nothing is resized or checked here. What lies outside of the picture, in frames and boxes, does not count.

        Args:
            frames: (B, T, 3, H, W) float RGB 0..1; H and W are multiples of the backbone's divisor.
            boxes: (N, 4) xyxy in pixels of `frames`.
            frame_of_box: (N,) int64 in 0..B*T-1: frame t of clip b is b * T + t.
            sizes: (B, 2) int64 height and width of the picture in the upper left of each clip's frames; None: all.

        Returns:
            (layers, N, D) of unit length; the last layer is what `forward` gives.
        """
        maps = self.backbone_maps(frames.flatten(0, 1), sizes)
        return self.encode_maps(maps, boxes, frame_of_box, sizes, clips=len(frames))[0]

    def backbone_maps(self, frames: Tensor, sizes: Tensor | None = None) -> list[Tensor]:
        """All maps of the backbone, and behind them that of colours, if the variant's bands hold colours.

        Args:
            frames: (F, 3, H, W) float RGB 0..1, padded; H and W are multiples of the backbone's divisor.
            sizes: (B, 2) height and width of the pictures in them, F / B frames each; None: all.

        Returns:
            L tensors (F, C_l, H_l, W_l), and (F, C, H / 4, W / 4).
        """
        area = Area(frames.shape[2], frames.shape[3], _per_frame(sizes, len(frames)))
        padding = area.padding((area.height, area.width), stride=1)
        if padding is not None:
            padding = padding.view(len(frames), 1, area.height, area.width)
        maps = self._network_maps(frames, padding)
        if self.band_head is not None and self.band_head.layout.colours:
            with torch.no_grad():
                seen = frames if padding is None else frames.masked_fill(padding, 0.5)  # a gray that says little
                maps.append(colour_map(seen * 255))
        return maps

    def _network_maps(self, frames: Tensor, padding: Tensor | None) -> list[Tensor]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.variant.frozen):
            images = self._normalised(frames)
            if padding is not None:  # zeros after normalisation: the mean colour, not black
                images = images.masked_fill(padding, 0.0)
            images = images.to(next(self.backbone.parameters()).dtype)
            if images.device.type == "cpu" and not torch.is_grad_enabled() and len(images) > 1:
                # Half the time of a batch: what a layer gives is still in the cache when the next one reads it.
                single = [self.backbone(image) for image in images.split(1)]
                return [torch.cat(level) for level in zip(*single)]
            maps: list[Tensor] = self.backbone(images)
        return maps

    def _normalised(self, frames: Tensor) -> Tensor:
        """(value - mean) / std, with plain numbers: a tensor of them would be copied to the device each time."""
        statistics = zip(frames.unbind(1), self.backbone.mean, self.backbone.std, strict=True)
        return torch.stack([(channel - mean) / std for channel, mean, std in statistics], dim=1)

    def encode_maps(
        self,
        maps: Sequence[Tensor],
        boxes: Tensor,
        frame_of_box: Tensor,
        sizes: Tensor | None = None,
        *,
        clips: int = 1,
        earlier: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """As `encode`, from the maps of `backbone_maps`.

        This has no shape that depends on values and waits for no device, so it can be compiled and held in a CUDA
        graph.

        Args:
            maps, boxes, frame_of_box, sizes: see `encode` and `backbone_maps`.
            clips: B.
            earlier: what this method gave for the frames before; B is 1 then. None: these are the first frames.

        Returns:
            (layers, N, D), and `earlier` for the frames that follow: (layers, window, H W, D). None if B is not 1, or
            if nothing is remembered.
        """
        deepest_stride = self._strides[-1]
        height, width = maps[self._levels[-1]].shape[-2:]
        area = Area(height * deepest_stride, width * deepest_stride, _per_frame(sizes, len(maps[0])))
        used = [maps[index] for index in self._levels]
        located = area.clip(boxes.to(torch.promote_types(boxes.dtype, torch.float32)), frame_of_box)
        remembered: Tensor | None = None
        if self.encoder is None:
            shape = (height, width)
            deepest = area.extended(used[-1].flatten(2).transpose(1, 2), shape, deepest_stride)
        else:
            memory = self.encoder(used, area)
            shape = memory.shapes[memory.deepest]
            deepest = area.extended(memory.levels[memory.deepest], shape, deepest_stride)
        grid = deepest.transpose(1, 2).unflatten(2, shape)
        regions = pooled_regions(grid, located, frame_of_box, deepest_stride, self.variant)
        if self.decoder is None:
            features = [regions.mean((2, 3))]
        else:
            queries = Queries(
                regions=regions,
                boxes=_centred(located / area.whole(located)),
                relative=_centred(located / area.corner(frame_of_box, located.dtype)),
                frame_of_box=frame_of_box,
            )
            features, remembered = self.decoder(queries, memory, deepest, clips, earlier)
        if self.heads is not None:
            features = [head(each) for head, each in zip(self.heads, features)]
        precise = torch.promote_types(features[0].dtype, torch.float32)
        embeddings = F.normalize(torch.stack(features).to(precise), dim=-1)
        if self.band_head is not None:
            seen = [*used, maps[-1]] if self.band_head.layout.colours else used
            plain = self._bands(seen, area, located, frame_of_box).to(precise)
            weighted = embeddings * self.band_weight.to(precise)[:, None, None]
            embeddings = F.normalize(torch.cat([plain.expand(len(embeddings), -1, -1), weighted], dim=-1), dim=-1)
        return embeddings, remembered

    def _bands(self, maps: Sequence[Tensor], area: Area, boxes: Tensor, frame_of_box: Tensor) -> Tensor:
        """The backbone's plain feature in bands, (N, D) of unit length."""
        assert self.band_head is not None
        extended = []
        for level, stride in zip(maps, self.band_head.strides, strict=True):
            shape = (level.shape[2], level.shape[3])
            tokens = area.extended(level.flatten(2).transpose(1, 2), shape, stride)
            extended.append(tokens.transpose(1, 2).unflatten(2, shape))
        pooled = self.band_head.pool_flat(extended, boxes, frame_of_box)
        return F.normalize(self.band_head(pooled), dim=-1)


def _head(width: int, dimensions: int) -> nn.Linear:
    head = nn.Linear(width, dimensions)
    nn.init.xavier_uniform_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _levels(variant: Variant, available: int) -> list[int]:
    """Indices of the backbone's maps that are encoded."""
    if variant.levels is None:
        return list(range(available))
    for index in variant.levels:
        if not -available <= index < available:
            raise ValueError(
                f"{variant.name}: levels has {index}, but the backbone {variant.backbone} gives {available} maps"
            )
    return [index % available for index in variant.levels]


def _per_frame(sizes: Tensor | None, num_frames: int) -> Tensor | None:
    """(B, 2) to (F, 2)."""
    return None if sizes is None else sizes.repeat_interleave(num_frames // len(sizes), dim=0)


def _centred(boxes: Tensor) -> Tensor:
    """xyxy to cx, cy, w, h."""
    return torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1)
