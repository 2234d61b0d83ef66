"""How a detector of the DETR family is built: its widths, its numbers of layers, and the conventions of its code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Form = Literal["dab", "plain"]
Conventions = Literal["coco", "memotr"]

POSITIVE = (
    "hidden",
    "heads",
    "points",
    "levels",
    "encoder_layers",
    "decoder_layers",
    "feedforward",
    "queries",
    "classes",
)


@dataclass(frozen=True, kw_only=True)
class DetectorSizes:
    """DAB-Deformable-DETR (Liu et al., ICLR 2022) or plain Deformable-DETR (Zhu et al., ICLR 2021).

    Four things that weights do not show differ between the code of the published COCO models and that of MeMOTR, whose
    training starts from them; `conventions` says which hold ([D]: coco, under which the weights were trained first).

    | | coco | memotr |
    | --- | --- | --- |
    | temperature of the sine embedding of maps | 10000 | 20 |
    | order of the sine embedding of anchors | y, x, w, h | x, y, w, h |
    | clamp of the inverse sigmoid | 1e-3 (dab), 1e-5 (plain) | 1e-5 |
    | sides of pictures are padded to multiples of | 1 | 32 |

    Args:
        form: `dab`: queries have anchors, four numbers each. `plain`: they have a position vector, and a reference
            point that follows from it.
        backbone: a key of `trackmill.models.backbones.multilevel.BACKBONES`; resnet50 in the papers.
        hidden: D, width of all maps and queries; a multiple of 4 and of `heads`.
        heads: attention heads.
        points: sampling points of each head on each level.
        levels: L, maps that are read. If the backbone has fewer, convolutions of stride 2 make the others; if it has
            more, the deepest ones are taken.
        encoder_layers, decoder_layers: numbers of layers.
        feedforward: width inside the feed-forward layers; 2048, and 1024 in the plain form.
        queries: detect queries, the most objects that a picture can have.
        classes: C, class logits of each query; 1 for people, 91 in the published COCO files (row 1 is person).
        conventions: see above.
        box_refinement: every decoder layer refines the boxes of the one before, with heads of its own. Without (plain
            form only) all layers start at the first reference point and share their heads.
        separate_first_layers: [D] in so many first decoder layers track queries are left as they are, and detect
            queries attend to themselves alone; 0 here, 1 in MeMOTR. For the dab form only.
    """

    form: Form = "dab"
    backbone: str = "resnet50"
    hidden: int = 256
    heads: int = 8
    points: int = 4
    levels: int = 4
    encoder_layers: int = 6
    decoder_layers: int = 6
    feedforward: int = 2048
    queries: int = 300
    classes: int = 1
    conventions: Conventions = "coco"
    box_refinement: bool = True
    separate_first_layers: int = 0
    anchors: Literal["normal", "grid"] = "normal"

    def __post_init__(self) -> None:
        if self.form not in ("dab", "plain"):
            raise ValueError(f"form must be dab or plain, not {self.form!r}; two-stage detectors are not supported")
        if self.conventions not in ("coco", "memotr"):
            raise ValueError(f"conventions must be coco or memotr, not {self.conventions!r}")
        if self.anchors not in ("normal", "grid"):
            raise ValueError(f"anchors must be normal or grid, not {self.anchors!r}")
        for field in POSITIVE:
            value = getattr(self, field)
            if type(value) is not int or value < 1:
                raise ValueError(f"{field} must be a whole number of at least 1, not {value!r}")
        if self.hidden % self.heads:
            raise ValueError(f"hidden must be a multiple of heads: {self.hidden} is none of {self.heads}")
        if self.hidden % 4:
            raise ValueError(f"hidden must be a multiple of 4 (sine embedding), not {self.hidden}")
        if not 0 <= self.separate_first_layers <= self.decoder_layers:
            raise ValueError(
                f"separate_first_layers must be in 0..decoder_layers ({self.decoder_layers}), not "
                f"{self.separate_first_layers}"
            )
        if self.form == "plain" and self.separate_first_layers:
            raise ValueError("separate_first_layers must be 0 in the plain form, whose queries begin with points")
        if self.form == "dab" and not self.box_refinement:
            raise ValueError("box_refinement must be true in the dab form")

    @property
    def map_temperature(self) -> float:
        """Of the sine embedding of maps."""
        return 10000.0 if self.conventions == "coco" else 20.0

    @property
    def clamp(self) -> float:
        """Of the inverse sigmoid: numbers closer than this to 0 or 1 are moved there."""
        return 1e-3 if self.conventions == "coco" and self.form == "dab" else 1e-5

    @property
    def anchor_order(self) -> tuple[int, int, int, int]:
        """Which of cx, cy, w, h come first, second, ... in the sine embedding of an anchor."""
        return (1, 0, 2, 3) if self.conventions == "coco" else (0, 1, 2, 3)

    @property
    def divisor(self) -> int:
        """Sides of pictures are padded to multiples of it; the backbone may ask for more."""
        return 32 if self.conventions == "memotr" else 1

    @property
    def norm_groups(self) -> int:
        """Groups of the group norms behind the projections: 32, or the most that divide a smaller width."""
        return next(groups for groups in (32, 16, 8, 4) if self.hidden % groups == 0)
