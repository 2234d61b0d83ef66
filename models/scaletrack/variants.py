"""The variants of ScaleTrack: which parts they have and how wide these are. Plain data; imports no framework.

The paper is silent in places and contradicts itself in others. Each choice made there is a field here; the comment
`[D]` in its help marks it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from trackmill.models.masa.band_layout import COLOUR_BANDS, BandLayout


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One variant. The defaults are the paper's model (sections 3.4 and A.1); `dataclasses.replace` makes another.

    The rows of the paper's Table 7, each of which adds one part to the row above:

    | row | fields |
    | --- | --- |
    | (a) frozen backbone, no training | `encoder=False, decoder=False, head=False` |
    | (b) + encoder, trained | `decoder=False` |
    | (c) + spatial attention pooling | `temporal=False, cross_attention=False` |
    | (d) + cross-attention | `temporal=False` |
    | (e) + temporal fusion | the defaults |

    Two decisions have no field, as others would change what a query is: queries are the content of boxes, and their
    reference points the boxes themselves, without learnt queries or a proposal head; and boxes never attend to each
    other, since the paper lists no such step. Which blocks of a transformer give the maps is the backbone's business
    (`trackmill.models.backbones`).

    Table 14's single level is `levels=(-1,)`, Table 6's trained backbone is `frozen=False`, and Table 12's depths are
    `decoder_layers`.

    Args:
        name: name of the variant in `trackmill.models.scaletrack.load`.
        backbone: name in `trackmill.models.backbones.multilevel.BACKBONES`.
        frozen: True keeps the backbone as it is: evaluation mode, no gradients.
        levels: [D] which of the backbone's maps are encoded, by their index; None: all. Boxes are pooled from the
            last of these.
        extra_levels: [D] levels that strided convolutions make of the last one, each half as large, for the encoder
            and the cross-attention.
        side: width and height in pixels of the square that the network reads; a multiple of the backbone's divisor.
        resize: [D] `pad` fits the longer side into the square and fills up right and below, `stretch` changes the
            aspect ratio.
        channels: D of the encoder and of the decoder.
        heads: attention heads, which divide `channels`.
        points: sampling points of each head, level and query.
        feedforward: [D] width of the feed-forward layers.
        dropout: [D] share of values dropped while training.
        norm_groups: [D] groups of the norm behind each level's projection; they divide `channels`.
        encoder: False leaves the encoder's layers out; each level is then only projected (and with `decoder=False`
            not even that).
        encoder_layers: layers of the encoder, for each level.
        shared_encoder: [D] True encodes all levels with the same layers; the paper's Eq. 3 gives each level its own.
        decoder: False leaves the whole decoder out: the embedding comes from the mean of the pooled box.
        decoder_layers: layers of the decoder. Each has its own output, so that a loss can supervise all of them.
        roi_size: [D] cells along each side of a pooled box.
        roi_samples: [D] bilinear samples along each side of a cell.
        spatial: spatial attention pooling and adaptive sampling (Eqs. 5 and 6). False takes the mean of the pooled box.
        adaptive_points: [D] K, points of the adaptive sampling; their mean is taken.
        adaptive_spread: [D] where they start: at (+-spread, +-spread) of the box, whose edges are -1 and 1.
        pass_queries: [D] True adds the embedding of the layer before to that of Eq. 6; False makes layers independent.
        temporal: deformable fusion over the maps of earlier frames (Eq. 7).
        window: [D] earlier frames that the fusion sees.
        temporal_points: sampling points of each head in these.
        temporal_reach: [D] how far from the centre of the box they lie at most, in widths and heights of the box.
        detach_history: [D] True stops gradients at the maps of earlier frames.
        modulation: modulation of the embedding by its own gates (Eq. 8).
        cross_attention: deformable attention to all levels of the frame (Eq. 9), with its feed-forward layer.
        cross_reference: [D] `box` scales the sampling offsets by the box, `point` by the cells of each level.
        head: a linear layer behind each decoder layer. False: the embedding is the feature itself, of unit length.
        dimensions: [D] width of the embedding behind this layer.
        bands: our small model's: the embedding begins with the backbone's plain feature in horizontal bands
            (`trackmill.models.masa.bands`), and the part above follows with a learnt weight. The paper has no such
            part. Training then starts at a feature that already tells objects apart.
        band_layout: how this feature is cut into bands, and whether it holds colours.
        bands_start: the weight of the part above in the beginning.
    """

    name: str
    backbone: str
    frozen: bool = True
    levels: tuple[int, ...] | None = None
    extra_levels: int = 0
    side: int = 518
    resize: Literal["pad", "stretch"] = "pad"
    channels: int = 256
    heads: int = 8
    points: int = 4
    feedforward: int = 1024
    dropout: float = 0.0
    norm_groups: int = 32
    encoder: bool = True
    encoder_layers: int = 2
    shared_encoder: bool = False
    decoder: bool = True
    decoder_layers: int = 2
    roi_size: int = 7
    roi_samples: int = 2
    spatial: bool = True
    adaptive_points: int = 4
    adaptive_spread: float = 0.5
    pass_queries: bool = True
    temporal: bool = True
    window: int = 4
    temporal_points: int = 4
    temporal_reach: float = 1.0
    detach_history: bool = False
    modulation: bool = True
    cross_attention: bool = True
    cross_reference: Literal["box", "point"] = "box"
    head: bool = True
    dimensions: int = 256
    bands: bool = False
    band_layout: BandLayout = COLOUR_BANDS
    bands_start: float = 0.1

    def __post_init__(self) -> None:
        for field in _POSITIVE:
            if getattr(self, field) < 1:
                raise ValueError(f"{self.name}: {field} must be at least 1, not {getattr(self, field)}")
        for field in ("heads", "norm_groups"):
            if self.channels % getattr(self, field):
                raise ValueError(
                    f"{self.name}: channels must be a multiple of {field}: {self.channels} is none of "
                    f"{getattr(self, field)}"
                )
        if self.channels % 4:
            raise ValueError(f"{self.name}: channels must be a multiple of 4 (position embedding), not {self.channels}")
        if self.resize not in ("pad", "stretch"):
            raise ValueError(f"{self.name}: resize must be pad or stretch, not {self.resize!r}")
        if self.cross_reference not in ("box", "point"):
            raise ValueError(f"{self.name}: cross_reference must be box or point, not {self.cross_reference!r}")
        if self.levels is not None and not self.levels:
            raise ValueError(f"{self.name}: levels must name at least one of the backbone's maps; None takes all")
        for field in ("dropout", "adaptive_spread"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(f"{self.name}: {field} must be in 0..1, without 1, not {getattr(self, field)}")
        if self.extra_levels < 0:
            raise ValueError(f"{self.name}: extra_levels must be at least 0, not {self.extra_levels}")
        if not 0 < self.temporal_reach < math.inf:
            raise ValueError(f"{self.name}: temporal_reach must be above 0 and finite, not {self.temporal_reach}")
        if not math.isfinite(self.bands_start):
            raise ValueError(f"{self.name}: bands_start must be finite, not {self.bands_start}")

    @property
    def num_layers(self) -> int:
        """Outputs for each box: one for each decoder layer, or one without a decoder."""
        return self.decoder_layers if self.decoder else 1

    @property
    def remembers(self) -> bool:
        """Whether embeddings depend on earlier frames."""
        return self.decoder and self.temporal


_POSITIVE = (
    "side",
    "channels",
    "heads",
    "points",
    "feedforward",
    "norm_groups",
    "encoder_layers",
    "decoder_layers",
    "roi_size",
    "roi_samples",
    "adaptive_points",
    "window",
    "temporal_points",
    "dimensions",
)

VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant(name="scaletrack_s", backbone="dinov2_vits14"),
        Variant(name="scaletrack_l", backbone="dinov2_vitl14"),
        # Strides 8, 16 and 32: cells of stride 4 would cost more than all else. Table 15's 37 M parameters of R50 leave
        # room for a level of stride 64. Sides are multiples of 32.
        Variant(name="scaletrack_r50", backbone="resnet50", extra_levels=1, side=512),
        Variant(name="scaletrack_swin_t", backbone="swin_t", side=512),
        Variant(name="scaletrack_swin_b", backbone="swin_b", side=512),
        # Table 20: the tracker's head on the frozen backbone of the detector.
        Variant(name="scaletrack_unified_detic", backbone="detic_swinb", side=896),
        Variant(name="scaletrack_dinov3_s", backbone="vit_small_patch16_dinov3", side=512),
        # Ours, not the paper's: small enough to train and run on a laptop's CPU. Its recipe trains it on squares of 320
        # pixels; there, small people lose 8 points of rank-1 (PETS09-S2L1, a gap of 10 frames, untrained).
        Variant(
            name="scaletrack_lite0",
            backbone="lite0",
            side=640,
            channels=128,
            heads=4,
            feedforward=256,
            encoder_layers=1,
            dimensions=128,
            bands=True,
        ),
    )
}
