"""What a recipe says about MASA's network and losses: sections `model` and `loss`."""

from __future__ import annotations

import dataclasses
from typing import Literal

from pydantic import Field

from trackmill.models.masa.losses import LossSettings
from trackmill.models.masa.rpn_inference import KEY_PROPOSALS, TEST_PROPOSALS
from trackmill.schemas.config import Settings


class ModelSettings(Settings):
    """Section `model`: what is trained, from where, and which parts of it."""

    variant: str = Field("masa_lite0", description="A name in trackmill.models.masa.variants.")
    weights: str = Field(
        "",
        description="Where all weights start: a checkpoint's path or URL; `imagenet`: the backbone's; empty: fresh.",
    )
    backbone_weights: str = Field(
        "",
        description="A checkpoint of which only the backbone is taken: SAM's, Detic's, MASA's, a ResNet-50.",
    )
    freeze: tuple[str, ...] = Field(
        (), description="Parts that are not trained, as named in the state dict: backbone, masa_adapter, rpn_head, ..."
    )
    compatible_offsets: bool | None = Field(
        None, description="How the coarser level is sampled; leave it out unless you know (trackmill.models.masa.load)."
    )


class LossSection(Settings):
    """Section `loss`: see `trackmill.models.masa.losses.LossSettings`."""

    contrast: Literal["released", "paper"] = Field(
        "released", description="released: dot products, positives averaged; paper: cosines at temperature 0.07, a sum."
    )
    auxiliary_weight: float = Field(1.0, ge=0, description="Of the margin loss, which the paper does not have.")
    detection: bool = Field(
        True, description="Train the proposal and object heads too; if not, only given objects are compared."
    )
    negatives: Literal["pair", "batch"] = Field(
        "pair",
        description="Other objects of the same picture, or of the whole batch but for the same video's: of all ranks, "
        "and with optim.accumulate of one part of it, which is less.",
    )
    ignore_iou: float = Field(
        1.0, ge=0, le=1, description="Objects of a picture that overlap more are no negatives of each other."
    )
    symmetric: bool = Field(False, description="Compare in both directions.")
    proposals: int = Field(1000, gt=0, description="Boxes of the proposal head that losses draw from, an image.")
    samples: int = Field(512, gt=0, description="Boxes an image that are embedded, at most half of them positives.")

    def settings(self) -> LossSettings:
        """The same as the losses take it."""
        default = LossSettings()
        return LossSettings(
            contrast=self.contrast,
            auxiliary_weight=self.auxiliary_weight,
            detection=self.detection,
            negatives=self.negatives,
            ignore_iou=self.ignore_iou,
            symmetric=self.symmetric,
            key_proposals=dataclasses.replace(KEY_PROPOSALS, kept=self.proposals),
            ref_proposals=dataclasses.replace(TEST_PROPOSALS, kept=self.proposals),
            track_sampling=dataclasses.replace(default.track_sampling, total=self.samples),
        )
