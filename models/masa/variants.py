"""The variants of MASA: their parts, and how to recognise their checkpoints. Plain data; imports no framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from trackmill.models.masa.band_layout import COLOUR_BANDS, SIX_BANDS, BandLayout
from trackmill.models.weights.metadata import to_header

if TYPE_CHECKING:
    from torch import Tensor

Backbone = Literal[
    "resnet50", "sam_vit_b", "sam_vit_h", "swin_b_window7", "swin_b_window12", "efficientnet_lite0_tensorflow"
]

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One variant. Source of the values: the released configurations (configs/masa-*), read at commit e302032.

    Args:
        name: name of the variant in `trackmill.models.masa.load`.
        backbone: network whose maps the adapter reads.
        frozen: True if the backbone belongs to a detector that was trained before and is not changed. Its weights then
            have the prefix `detector.backbone.`, otherwise `backbone.`.
        in_channels: C of each of the backbone's maps, the finest first.
        strides: pixels per cell of each of the adapter's L levels.
        num_roi_levels: number of levels that regions are pooled from, the finest first. Only the proposal head and the
            fusion use the others.
        channels: C of all levels.
        pyramid: `fpn` (batch norm, from maps of different strides) or `simple` (from four maps of stride 16).
        fusion: `deform` (DeformFusion) or `dyhead`.
        compatible_offsets: True convolves the coarser map with offsets read in the order of the released code
            (`trackmill.models.layers.deform_conv.reread`), which official weights need. False enlarges the map first.
        pad_divisor: images are padded right and below to a multiple of this, in pixels.
        input_side: width and height in pixels that every padded image must have; 0: any.
        mean, std: mean and standard deviation of R, G, B in 0..255; padding is zero after normalisation.
        resize: (long, short) side in pixels of the rectangle that the released benchmarks fit images into; the aspect
            ratio is kept.
        roi_convs: convolutions of the RoI head: 4 ("Shared4Conv1FC") or 0 ("Shared2FC").
        head_channels: width of the fully connected layers of the RoI and track heads.
        embed_channels: D of the embeddings.
        track_head: `convs`, the paper's head on the adapter's levels, or `bands`, our head on the backbone's maps
            (`trackmill.models.masa.bands`).
        bands: how that head cuts regions.
        rpn_loss: box loss of the proposal head; `smooth_l1` has beta 1/9.
        fingerprint: a key of the state dict and its shape; no other variant has this pair.
        aside: prefixes of entries of official checkpoints that belong to the detector around the backbone. Embeddings
            do not need them, so they are accepted and not loaded; those of masa_detic are read by
            `trackmill.models.masa.detic_detector` if boxes are to come from there.
    """

    name: str
    backbone: Backbone
    frozen: bool
    in_channels: tuple[int, ...]
    strides: tuple[int, ...]
    num_roi_levels: int
    channels: int = 256
    pyramid: Literal["fpn", "simple"] = "fpn"
    fusion: Literal["deform", "dyhead"] = "deform"
    compatible_offsets: bool = True
    pad_divisor: int = 32
    input_side: int = 0
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    resize: tuple[int, int] = (1024, 1024)
    roi_convs: Literal[0, 4] = 0
    head_channels: int = 1024
    embed_channels: int = 256
    track_head: Literal["convs", "bands"] = "convs"
    bands: BandLayout = SIX_BANDS
    rpn_loss: Literal["l1", "smooth_l1"] = "smooth_l1"
    fingerprint: tuple[str, tuple[int, ...]]
    aside: tuple[str, ...] = ()

    @property
    def num_levels(self) -> int:
        """L, the number of levels of the adapter."""
        return len(self.strides)

    @property
    def backbone_prefix(self) -> str:
        """Prefix of the backbone's weights in the state dict."""
        return "detector.backbone." if self.frozen else "backbone."


_DETICS_OWN = "roi_head.bbox_head.0.fc_cls.linear.weight"
"""In a Detic that stands alone, whose ResNet-50 has in mmdetection's form the names of MASA's."""

_TABLE = "stages.0.blocks.0.attn.w_msa.relative_position_bias_table"


def _sam(name: str, backbone: Backbone, width: int) -> Variant:
    return Variant(
        name=name,
        backbone=backbone,
        frozen=True,
        in_channels=(width,) * 4,
        strides=(4, 8, 16, 32, 64),
        num_roi_levels=4,
        pyramid="simple",
        fusion="dyhead",
        pad_divisor=1024,
        input_side=1024,
        fingerprint=("detector.backbone.pos_embed", (1, 64, 64, width)),
    )


def _lite0(name: str, bands: BandLayout, width: int) -> Variant:
    return Variant(
        name=name,
        backbone="efficientnet_lite0_tensorflow",
        frozen=False,
        in_channels=(40, 112, 320),
        strides=(8, 16, 32),
        num_roi_levels=3,
        channels=128,
        compatible_offsets=False,
        # Small people in large pictures need it: 640 takes less than half the time, and loses 5 points of rank-1 at a
        # gap of 50 frames.
        resize=(960, 960),
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
        head_channels=512,
        embed_channels=bands.bands * width,
        track_head="bands",
        bands=bands,
        fingerprint=("track_head.mean", (width,)),
    )


VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant(
            name="masa_r50",
            backbone="resnet50",
            frozen=False,
            in_channels=(256, 512, 1024, 2048),
            strides=(4, 8, 16, 32, 64),
            num_roi_levels=4,
            roi_convs=4,
            rpn_loss="l1",
            fingerprint=("backbone.layer4.2.conv3.weight", (2048, 512, 1, 1)),
        ),
        _sam("masa_sam_vitb", "sam_vit_b", 768),
        _sam("masa_sam_vith", "sam_vit_h", 1280),
        Variant(
            name="masa_detic",
            backbone="swin_b_window7",
            frozen=True,
            in_channels=(256, 512, 1024),
            strides=(8, 16, 32, 64, 128),
            num_roi_levels=3,
            resize=(1333, 800),
            fingerprint=(f"detector.backbone.{_TABLE}", (169, 4)),
            aside=("detector.neck.", "detector.rpn_head.", "detector.roi_head."),
        ),
        Variant(
            name="masa_gdino",
            backbone="swin_b_window12",
            frozen=True,
            in_channels=(256, 512, 1024),
            strides=(8, 16, 32, 64, 128),
            num_roi_levels=3,
            # The training and benchmark configurations; the demo's pads to 32 (use `dataclasses.replace` for that).
            pad_divisor=1024,
            fingerprint=(f"detector.backbone.{_TABLE}", (529, 4)),
            aside=(
                "detector.neck.",
                "detector.encoder.",
                "detector.decoder.",
                "detector.bbox_head.",
                "detector.language_model.",
                "detector.text_feat_map.",
                "detector.memory_trans_fc.",
                "detector.memory_trans_norm.",
                "detector.query_embedding.",
                "detector.dn_query_generator.",
                "detector.level_embed",
            ),
        ),
        # Ours, not the paper's: small enough to train and run on a laptop's CPU.
        _lite0("masa_lite0", SIX_BANDS, 40 + 112 + 320),
        # Colours are 80 channels more.
        _lite0("masa_lite0_colour", COLOUR_BANDS, 40 + 112 + 320 + 80),
    )
}


def recognise(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the variant whose weights these are, as far as one key and its shape tell; None for others."""
    for variant in VARIANTS.values():
        key, shape = variant.fingerprint
        if key in tensors and tuple(tensors[key].shape) == shape and _DETICS_OWN not in tensors:
            return variant.name
    return None


def metadata_of(variant: Variant, **more: str) -> dict[str, str]:
    """Metadata for safetensors files of `variant`; a model loaded from them then samples as it was trained to."""
    return to_header({"variant": variant.name, "compatible_offsets": variant.compatible_offsets, **more})
