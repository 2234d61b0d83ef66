"""What a recipe says about IP-MOT's network, losses and TrackBook: sections `model`, `matching`, `loss`, `trackbook`.

The defaults are the paper's. Where the paper is silent, `[D]` marks a decision made here. Rows of its ablation tables:

| table | what | keys |
| --- | --- | --- |
| 4 | M, learnt vectors of an identity | `trackbook.vectors` |
| 5 | decoder layers that carry the alignment | `loss.layers` |
| 6 | triplet, i2tce | `loss.triplet`, `loss.i2tce` |
| 7 | naive, alignment, query balanced strategy | `model.variant`, `loss.alignment`, `model.changes` |

Tables 4 to 6 were measured without the query balanced strategy: their best row is "alignment without QBS" of table 7.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trackmill.models.clip.towers import PUBLISHED, ClipSizes
from trackmill.models.ipmot.clip_records import ClipPassSettings
from trackmill.models.ipmot.trackbook import TrackBookSettings
from trackmill.pipeline.tasks.variant_changes import VariantChanges, chosen_variant
from trackmill.schemas.config import Settings

_DEFAULT = TrackBookSettings()
_Beta = Annotated[float, Field(ge=0, lt=1)]


class ModelSettings(Settings):
    """Section `model`: what is trained, from where, and which parts of it."""

    variant: str = Field("ip_mot", description="A name in trackmill.models.ipmot.variants.")
    changes: VariantChanges = Field(
        default_factory=dict,
        description="Fields of the variant with other values, such as {qbs = false} or {detector.queries = 60}. The "
        "exported file knows them.",
    )
    weights: str = Field(
        "", description="Where all weights start: a checkpoint of this variant, by path or URL; empty: fresh."
    )
    detector_weights: str = Field(
        "",
        description="Where the detector alone starts: the published COCO checkpoint of (DAB-)Deformable-DETR, by path "
        "or URL; empty: `weights`, or fresh.",
    )
    backbone_weights: str = Field(
        "",
        description="Where the backbone alone starts: its official checkpoint, by path or URL; `imagenet` (lite0) and "
        "`packaged` (ssdlite_mobilenet) are in packages.",
    )
    freeze: tuple[str, ...] = Field((), description="Parts that are not trained, as named in the state dict.")


class MatchingSettings(Settings):
    """Section `matching`: which queries are whose (section 3.3), in each decoder layer for itself."""

    class_cost: float = Field(2.0, ge=0, description="Of the focal cost; 2 in MOTR and MeMOTR [D].")
    l1_cost: float = Field(5.0, ge=0, description="Of the L1 distance of boxes in 0..1 [D].")
    giou_cost: float = Field(2.0, ge=0, description="Of the negative generalised IoU [D].")
    newborn_iou: float = Field(
        0.0,
        ge=0,
        le=1,
        description="A newborn whose box overlaps it less loses its identity at once; 0: never, MeMOTR has 0.5 [D].",
    )
    released: Literal["score", "always"] = Field(
        "score",
        description="A query that has just lost its identity goes on as a false positive if its score is high enough "
        "(`score`), or for one frame in any case (`always`, MeMOTR) [D].",
    )


class LossSection(Settings):
    """Section `loss`: weights of the extended collective average loss (equations 7 to 11)."""

    class_weight: float = Field(2.0, ge=0, description="Of the focal loss (Eq. 8); 2 in the paper.")
    l1_weight: float = Field(5.0, ge=0, description="Of the L1 loss of boxes (Eq. 8); 5 in the paper.")
    giou_weight: float = Field(2.0, ge=0, description="Of the GIoU loss (Eq. 8); 2 in the paper.")
    auxiliary_weight: float = Field(1.0, ge=0, description="Of the same losses at each inner decoder layer [D].")
    dem_weight: float = Field(2.0, ge=0, description="Of the deduplication module's focal loss [D].")
    dem_background: Literal["zero", "ignore"] = Field(
        "zero",
        description="Detect queries that nobody is matched to: `zero` teaches the deduplication module to reject them, "
        "`ignore` leaves them out of its loss [D].",
    )
    alignment: bool = Field(
        True,
        description="Pull embeddings of the same person together, and to the texts of the TrackBook. false: neither, "
        "and CLIP is not needed.",
    )
    triplet: bool = Field(True, description="Whether the alignment has the triplet loss (Eq. 9, table 6).")
    i2tce: bool = Field(
        True, description="Whether the alignment has the cross-entropy to texts (Eq. 10, table 6), which needs CLIP."
    )
    triplet_weight: float = Field(2.0, ge=0, description="Of the triplet loss; 2 in the paper.")
    margin: float = Field(0.3, ge=0, description="Of the triplet loss: alpha; 0.3 in the paper.")
    i2tce_weight: float = Field(4.0, ge=0, description="Of the cross-entropy to texts; 4 in the paper.")
    smoothing: float = Field(0.1, ge=0, lt=1, description="Label smoothing of the cross-entropy: epsilon [D].")
    layers: int = Field(
        5, ge=1, description="Decoder layers that carry the alignment, counted from the last (table 5: 1, 3, 5)."
    )

    @property
    def aligned_layers(self) -> int:
        """Decoder layers of which embeddings are compared; 0 without alignment."""
        return self.layers if self.alignment and (self.triplet or self.i2tce) else 0

    @property
    def needs_clip(self) -> bool:
        """Whether embeddings are compared with texts."""
        return self.alignment and self.i2tce


class TrackBookSection(Settings):
    """Section `trackbook`: prompts of identities, learnt with a frozen CLIP (section 3.2). No part of the result."""

    clip_weights: str = Field(
        "", description="CLIP's official file (ViT-B-16.pt) or a state dict of it, by path or URL; it is never trained."
    )
    clip: str = Field("vit_b_16", description="Which CLIP that is: a name in trackmill.models.clip.towers.PUBLISHED.")
    clip_changes: VariantChanges = Field(
        default_factory=dict, description="Sizes that differ in a CLIP of your own, such as {text.layers = 6}."
    )
    capacity: int = Field(
        _DEFAULT.capacity,
        ge=1,
        le=1 << 20,
        description="Most identities of the data set; each takes 25 kB in memory and in checkpoints.",
    )
    vectors: int = Field(
        _DEFAULT.vectors, ge=1, le=60, description="M, learnt vectors of an identity (table 4: 2, 4, 6, 8)."
    )
    initial_std: float = Field(
        _DEFAULT.initial_std, gt=0, description="Standard deviation of the vectors that an identity starts with [D]."
    )
    lr: float = Field(_DEFAULT.learning_rate, gt=0, le=1000, description="Of its AdamW at the first step; 3.5e-4.")
    decay: Literal["cosine", "constant"] = Field(
        "cosine", description="How its rate goes on: to 0 at the end of the schedule, as in the paper, or not at all."
    )
    weight_decay: float = Field(_DEFAULT.weight_decay, ge=0, le=100, description="Of its AdamW [D].")
    betas: tuple[_Beta, _Beta] = Field(_DEFAULT.betas, description="Of its AdamW [D].")
    eps: float = Field(_DEFAULT.eps, gt=0, le=1, description="Of its AdamW [D].")
    similarity: Literal["dot", "cosine"] = Field(
        _DEFAULT.similarity,
        description="Of pictures or embeddings and texts, here and in loss.i2tce: dot products as printed (Eq. 1), or "
        "cosines over `temperature` [D].",
    )
    temperature: float = Field(_DEFAULT.temperature, gt=0, description="Of cosines; CLIP's own is 0.01 [D].")
    t2i: Literal["log_sum", "mean_log"] = Field(
        _DEFAULT.text_to_image,
        description="Where an identity has several crops: log of their sum, as printed (Eq. 4), or the mean of logs "
        "[D].",
    )
    positions: Literal["bilinear", "bicubic"] = Field(
        "bilinear", description="How CLIP's positions are resized from squares to upright crops [D]."
    )
    smallest: float = Field(
        8.0, ge=1, description="Boxes of which less is in view are not read by CLIP, in pixels of either side [D]."
    )
    chunk: int = Field(
        _DEFAULT.chunk, ge=1, description="Crops, and prompts, that CLIP reads at a time; fewer need less memory."
    )

    def settings(self) -> TrackBookSettings:
        """The same as the TrackBook takes it."""
        return TrackBookSettings(
            capacity=self.capacity,
            vectors=self.vectors,
            initial_std=self.initial_std,
            learning_rate=self.lr,
            weight_decay=self.weight_decay,
            betas=self.betas,
            eps=self.eps,
            similarity=self.similarity,
            temperature=self.temperature,
            text_to_image=self.t2i,
            chunk=self.chunk,
        )

    def sizes(self) -> ClipSizes:
        """Sizes of CLIP's towers.

        Raises:
            ConfigError: unknown names or values that do not fit; names the key.
        """
        return chosen_variant(self.clip, self.clip_changes, PUBLISHED, "trackbook.clip", "trackbook.clip_changes")


def pass_settings(matching: MatchingSettings, loss: LossSection) -> ClipPassSettings:
    """Both sections as the pass over a clip takes them."""
    return ClipPassSettings(
        class_cost=matching.class_cost,
        l1_cost=matching.l1_cost,
        giou_cost=matching.giou_cost,
        newborn_iou_threshold=matching.newborn_iou,
        released=matching.released,
        class_weight=loss.class_weight,
        l1_weight=loss.l1_weight,
        giou_weight=loss.giou_weight,
        inner_weight=loss.auxiliary_weight,
        deduplication_weight=loss.dem_weight,
        dem_background=loss.dem_background,
        alignment_layers=loss.aligned_layers,
    )
