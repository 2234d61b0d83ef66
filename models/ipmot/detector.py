"""The detector of IP-MOT: DAB-Deformable-DETR, or plain Deformable-DETR (IP-MOT*), with room for track queries.

    detector = DeformableDetr(DetectorSizes(classes=91))
    found = detector(images, masks)                    # pred_logits, pred_boxes, aux

    maps = detector.encode(images, masks)              # the same in three steps, where a tracker adds its own queries
    queries = detector.detect_queries().followed_by(tracks)
    decoded = detector.decode(maps, queries, num_detect=300)

State-dict names are those of the published COCO files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trackmill.models.backbones.multilevel import MultiLevelBackbone
from trackmill.models.ipmot.decoder import Decoder, Mlp
from trackmill.models.ipmot.encoder import EncodedMaps as EncodedMaps
from trackmill.models.ipmot.encoder import Encoder
from trackmill.models.ipmot.picture_maps import PictureMaps, projections
from trackmill.models.ipmot.positions import inverse_sigmoid, level_masks, map_embedding, valid_ratios
from trackmill.models.ipmot.queries import Queries
from trackmill.models.ipmot.sizes import DetectorSizes
from trackmill.models.layers.deformable_attention import DeformableAttention

PRIOR = 0.01
"""Score that fresh class heads give everything, so that the focal loss begins small (Lin et al., ICCV 2017)."""

GRID_SIZE = (0.05, 0.15)
"""Width and height of fresh anchors on a grid, as shares of the picture's: an upright person."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """What every decoder layer says of every query, in the order of the queries.

    Args:
        hidden: (L, B, Q, D), the output embeddings; L are the decoder layers here.
        logits: (L, B, Q, C) float32.
        boxes: (L, B, Q, 4) float32, cx, cy, w, h in 0..1 of the picture without padding.
    """

    hidden: Tensor
    logits: Tensor
    boxes: Tensor


class Transformer(nn.Module):
    """Encoder, decoder, and what the published files keep beside them.

    Args:
        sizes: widths, numbers of layers, conventions.
    """

    def __init__(self, sizes: DetectorSizes) -> None:
        super().__init__()
        self.level_embed = nn.Parameter(torch.empty(sizes.levels, sizes.hidden))
        self.encoder = Encoder(sizes)
        self.decoder = Decoder(sizes)
        self.reference_points = nn.Linear(sizes.hidden, 2) if sizes.form == "plain" else None
        attention = (each for each in self.modules() if isinstance(each, DeformableAttention))
        own = {id(each) for module in attention for each in module.parameters()}  # they have their own beginning
        for parameter in self.parameters():
            if parameter.ndim > 1 and id(parameter) not in own:
                nn.init.xavier_uniform_(parameter)
        if self.reference_points is not None:
            nn.init.zeros_(self.reference_points.bias)
        nn.init.normal_(self.level_embed)


class DeformableDetr(nn.Module):
    """A detector with fresh weights.

    Args:
        sizes: how it is built.

    Raises:
        ValueError: there is no such backbone.
    """

    def __init__(self, sizes: DetectorSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.transformer = Transformer(sizes)
        heads = sizes.decoder_layers if sizes.box_refinement else 1
        self.class_embed = nn.ModuleList(nn.Linear(sizes.hidden, sizes.classes) for _ in range(heads))
        self.bbox_embed = nn.ModuleList(Mlp(*(sizes.hidden,) * 3, 4) for _ in range(heads))
        if sizes.form == "dab":
            self.tgt_embed = nn.Embedding(sizes.queries, sizes.hidden)
            self.refpoint_embed = nn.Embedding(sizes.queries, 4)
        else:
            self.query_embed = nn.Embedding(sizes.queries, 2 * sizes.hidden)
        backbone = PictureMaps(sizes.backbone, sizes.divisor)
        self.backbone = nn.ModuleList([backbone])
        self.mean, self.std, self.divisor = backbone.mean, backbone.std, backbone.divisor
        self.input_proj = projections(backbone.channels[-sizes.levels :], sizes)
        self._reset_heads()

    @property
    def whole_backbone(self) -> MultiLevelBackbone:
        """The backbone as others load weights into it; it shares all parameters."""
        first = self.backbone[0]
        assert isinstance(first, PictureMaps)
        return first.whole

    @torch.no_grad()
    def _reset_heads(self) -> None:
        """The published initialisation: scores of 0.01, and boxes at their references, small in the first layer."""
        on_grid = self.sizes.anchors == "grid" and self.sizes.form == "dab"
        for index, (score, box) in enumerate(zip(self.class_embed, self.bbox_embed)):
            assert isinstance(score, nn.Linear) and isinstance(box, Mlp)
            last = box.layers[-1]
            assert isinstance(last, nn.Linear)
            nn.init.constant_(score.bias, -math.log((1 - PRIOR) / PRIOR))
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            if index == 0 and not on_grid:
                last.bias[2:] = -2.0
        if on_grid:
            self.refpoint_embed.weight.copy_(grid_anchors(self.sizes.queries))

    def pyramid(self, images: Tensor, masks: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The L projected maps of pictures, and the padding of each.

        Args:
            images, masks: see `encode`.

        Returns:
            L maps (B, D, h, w), and as many masks (B, h, w) bool, True where it is padding.
        """
        below, right = -images.shape[-2] % self.divisor, -images.shape[-1] % self.divisor
        if below or right:
            images, masks = F.pad(images, (0, right, 0, below)), F.pad(masks, (0, right, 0, below), value=True)
        read = self.backbone[0](images)[-self.sizes.levels :]
        maps: list[Tensor] = []
        for index, projection in enumerate(self.input_proj):
            above = read[index] if index < len(read) else (read[-1] if index == len(read) else maps[-1])
            maps.append(projection(above))
        return maps, level_masks(masks, [(each.shape[-2], each.shape[-1]) for each in maps])

    def encode(self, images: Tensor, masks: Tensor) -> EncodedMaps:
        """Backbone, projections and encoder.

        Args:
            images: (B, 3, H, W) float, normalised as the backbone asks (`mean`, `std`), zero where padded.
            masks: (B, H, W) bool, True where padded: to the right and below.

        Returns:
            What `decode` reads.

        Raises:
            ValueError: shapes or kinds that do not go together.
        """
        _check_pictures(images, masks)
        maps, padding = self.pyramid(images, masks)
        width, temperature = self.sizes.hidden, self.sizes.map_temperature
        cells = torch.cat([each.flatten(2).transpose(1, 2) for each in maps], dim=1)
        embedded = [map_embedding(mask, width, temperature).flatten(1, 2) for mask in padding]
        dtype = self.transformer.level_embed.dtype
        levels = zip(embedded, self.transformer.level_embed)
        positions = torch.cat([each.to(dtype) + level for each, level in levels], dim=1)
        encoded = EncodedMaps(
            memory=cells,
            shapes=tuple((each.shape[-2], each.shape[-1]) for each in maps),
            padding=torch.cat([mask.flatten(1) for mask in padding], dim=1),
            valid_ratios=valid_ratios(padding),
        )
        memory = self.transformer.encoder(cells, positions, encoded)
        return EncodedMaps(memory, encoded.shapes, encoded.padding, encoded.valid_ratios)

    def detect_queries(self) -> Queries:
        """The queries that look for anything: content and reference, and in the plain form position."""
        if self.sizes.form == "dab":
            return Queries(content=self.tgt_embed.weight, reference=self.refpoint_embed.weight)
        position, content = self.query_embed.weight.split(self.sizes.hidden, dim=-1)
        return Queries(content=content, reference=self.point_logits(position), position=position)

    def point_logits(self, position: Tensor) -> Tensor:
        """Reference points of position vectors, for the plain form: (..., D) to logits of x, y (..., 2)."""
        assert self.transformer.reference_points is not None, "the dab form has anchors"
        logits: Tensor = self.transformer.reference_points(position)
        return logits

    def decode(self, maps: EncodedMaps, queries: Queries, num_detect: int | None = None) -> Decoded:
        """All decoder layers.

        Args:
            maps: of B pictures.
            queries: detect queries, then track queries; (Q, ...) for each picture alike, or (B, Q, ...).
            num_detect: how many are detect queries; None: all. It matters with `separate_first_layers` only.

        Returns:
            What each layer says.
        """
        sizes, decoder = self.sizes, self.transformer.decoder
        batch = len(maps.memory)
        content = _for_each(queries.content, batch)
        position = None if queries.position is None else _for_each(queries.position, batch)
        references = _for_each(queries.reference, batch).float().sigmoid()
        first = references
        alone = content.shape[1] if num_detect is None else num_detect
        hidden, logits, boxes = [], [], []
        for index, layer in enumerate(decoder.layers):
            separate = index < sizes.separate_first_layers and alone < content.shape[1]
            given = position if position is not None else decoder.positions(index, content, references, maps)
            if separate:
                detected = layer(content[:, :alone], given[:, :alone], references[:, :alone], maps)
                content = torch.cat([detected, content[:, alone:].to(detected)], dim=1)
            else:
                content = layer(content, given, references, maps)
            hidden.append(content)
            head = index if sizes.box_refinement else 0
            logits.append(self.class_embed[head](content).float())
            boxes.append(self._boxes(head, content, references))
            if sizes.box_refinement:
                refined = boxes[-1].detach()
                references = torch.cat([refined[:, :alone], references[:, alone:]], dim=1) if separate else refined
            else:
                references = first
        return Decoded(torch.stack(hidden), torch.stack(logits), torch.stack(boxes))

    def _boxes(self, head: int, content: Tensor, references: Tensor) -> Tensor:
        """(B, Q, 4) float32 from content and the references that entered the layer."""
        moved = self.bbox_embed[head](content).float()
        start = inverse_sigmoid(references, self.sizes.clamp)
        if start.shape[-1] == 2:
            start = F.pad(start, (0, 2))  # sizes begin at the head's own bias
        boxes: Tensor = (moved + start).sigmoid()
        return boxes

    def forward(self, images: Tensor, masks: Tensor) -> dict[str, Any]:
        """Detect.

        Args:
            images: (B, 3, H, W) float, normalised as the backbone asks, zero where padded.
            masks: (B, H, W) bool, True where padded: to the right and below.

        Returns:
            `pred_logits` (B, queries, C), `pred_boxes` (B, queries, 4): cx, cy, w, h in 0..1 of each picture without
            its padding; and `aux`: a list of the same two of each decoder layer but the last, the first one first.

        Raises:
            ValueError: see `encode`.
        """
        return self.report(self.decode(self.encode(images, masks), self.detect_queries()))

    @staticmethod
    def report(decoded: Decoded) -> dict[str, Any]:
        """The form that `forward` gives, of what `decode` gave."""
        layers = [{"pred_logits": each, "pred_boxes": box} for each, box in zip(decoded.logits, decoded.boxes)]
        return {**layers[-1], "aux": layers[:-1]}


def grid_anchors(number: int) -> Tensor:
    """Anchors of the size `GRID_SIZE`, spread evenly over the picture.

    Args:
        number: of anchors.

    Returns:
        (number, 4) logits of cx, cy, w, h.
    """
    columns = math.ceil(math.sqrt(number))
    sizes = torch.logit(torch.tensor(GRID_SIZE))
    # The device is named: transformers, once imported, makes linspace on the CPU where another is the default.
    cells = torch.linspace(0, columns * columns - 1, number, device=sizes.device).round().long()  # evenly of the square
    centres = torch.stack([cells % columns + 0.5, cells // columns + 0.5], dim=-1) / columns
    return torch.cat([torch.logit(centres), sizes.expand(number, 2)], dim=-1)


def _for_each(values: Tensor, batch: int) -> Tensor:
    return values.expand(batch, -1, -1) if values.ndim == 2 else values


def _check_pictures(images: Tensor, masks: Tensor) -> None:
    for name, given in (("images", images), ("masks", masks)):
        if not isinstance(given, Tensor):
            raise ValueError(f"{name} should be a tensor, found {type(given).__name__}")
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"images should be (B, 3, H, W) float, found {tuple(images.shape)} {images.dtype}")
    expected = (len(images), *images.shape[2:])
    if masks.dtype != torch.bool or masks.shape != expected:
        raise ValueError(
            f"masks should be {expected} bool, True where padded, found {tuple(masks.shape)} {masks.dtype}"
        )
