"""The variants of IP-MOT: which parts they have, and how they track. Plain data; imports no framework.

The paper is silent in places and contradicts itself in others. Each choice made there is a field here, or a setting of
the training pass (`trackmill.models.ipmot.clip_records.ClipPassSettings`); `[D]` in its help marks it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from trackmill.models.ipmot.sizes import DetectorSizes


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One variant. The defaults are the paper's model; `dataclasses.replace` makes another.

    The rows of the paper's Table 7, by fields (alignment is a loss, so a setting of training):

    | row | fields |
    | --- | --- |
    | naive | `detector.form="plain"`, `qbs=False` |
    | DAB | `qbs=False` |
    | + QBS and DEM | the defaults |

    Args:
        name: name of the variant in `trackmill.models.ipmot.load`.
        detector: form and sizes of the detector, and the conventions of its weights.
        track_update: [D] how outputs of a frame become the track queries of the next: `qim` is self-attention among
            the kept tracks (MOTR's), `memotr` is MeMOTR's with a long-term memory, `identity` takes the output itself.
        memory_rate: of `memotr`: weight of the newest output in the long-term memory.
        qbs: query-balanced strategy (section 3.3): detect queries learn every person, also those with a track. The
            deduplication module comes with it; without it a score is the class score alone.
        dem: False leaves the deduplication module out in spite of `qbs`, for the experiment that shows duplicates.
        dem_residual: [D] its attention has a residual connection and a norm; Eq. 5 prints neither.
        embedding: [D] width of the instance embedding, that of CLIP's texts; 0: no head.
        score_threshold: the paper's tau, for tracks and for detect queries that become tracks (section 4.2).
        keep_threshold: [D] below it a track query keeps its content and anchor, as of somebody hidden (MOTR); in
            training, an unmatched query above it stays as a false positive.
        iou_threshold: [D] in training, a track whose box overlaps its person less than this loses the identity (MOTR).
        miss_tolerance: [D] frames below `score_threshold` after which a track ends: MeMOTR's 15 for MOT17 and MOT20,
            30 for DanceTrack.
        min_area: [D] boxes of this many square pixels or less are not written (MOTR).
        short_side, long_side: frames are resized until the shorter side is `short_side` pixels, or the longer one
            `long_side`.
    """

    name: str
    detector: DetectorSizes = field(default_factory=DetectorSizes)
    track_update: Literal["qim", "memotr", "identity"] = "qim"
    memory_rate: float = 0.01
    qbs: bool = True
    dem: bool = True
    dem_residual: bool = True
    embedding: int = 512
    score_threshold: float = 0.5
    keep_threshold: float = 0.5
    iou_threshold: float = 0.5
    miss_tolerance: int = 15
    min_area: float = 100.0
    short_side: int = 800
    long_side: int = 1536

    def __post_init__(self) -> None:
        if self.track_update not in ("qim", "memotr", "identity"):
            raise ValueError(f"{self.name}: track_update must be qim, memotr or identity, not {self.track_update!r}")
        if self.track_update == "memotr" and self.detector.form != "dab":
            raise ValueError(f'{self.name}: track_update = "memotr" goes with detector.form = "dab" alone; take qim')
        if self.track_update == "memotr" and self.detector.hidden % 8:
            raise ValueError(
                f'{self.name}: track_update = "memotr" has 8 attention heads, so detector.hidden must be a multiple of '
                f"8, not {self.detector.hidden}"
            )
        for name in ("score_threshold", "keep_threshold", "iou_threshold", "memory_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{self.name}: {name} must be in 0..1, not {getattr(self, name)}")
        for name in ("miss_tolerance", "short_side"):
            if getattr(self, name) < 1:
                raise ValueError(f"{self.name}: {name} must be at least 1, not {getattr(self, name)}")
        if self.long_side < self.short_side:
            raise ValueError(f"{self.name}: long_side ({self.long_side}) is below short_side ({self.short_side})")
        if self.embedding < 0:
            raise ValueError(f"{self.name}: embedding must be a width, or 0 for none, not {self.embedding}")
        if not 0 <= self.min_area < math.inf:
            raise ValueError(f"{self.name}: min_area must be 0 or more and finite, not {self.min_area}")
        if self.detector.classes != 1:
            raise ValueError(f"{self.name}: a tracker has one class (people), not {self.detector.classes}")

    @property
    def deduplicates(self) -> bool:
        """Whether there is a deduplication module, so that scores are those of Eq. 6."""
        return self.qbs and self.dem


VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant(name="ip_mot"),
        # On plain Deformable DETR (Table 1).
        Variant(name="ip_mot_star", detector=DetectorSizes(form="plain", feedforward=1024)),
        # Ours, not the paper's: small enough to train and run on a laptop's CPU.
        Variant(
            name="ip_mot_tiny",
            detector=DetectorSizes(
                backbone="ssdlite_mobilenet",
                hidden=128,
                levels=3,
                encoder_layers=1,
                decoder_layers=3,
                feedforward=256,
                queries=30,
                anchors="grid",
            ),
            short_side=240,
            long_side=576,
        ),
        # Not the paper's either: MeMOTR as published for MOT17, to read its files and to compare numbers with it.
        Variant(
            name="memotr",
            detector=DetectorSizes(conventions="memotr", separate_first_layers=1),
            track_update="memotr",
            qbs=False,
            embedding=0,
        ),
    )
}
