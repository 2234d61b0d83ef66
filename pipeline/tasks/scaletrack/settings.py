"""What a recipe says about ScaleTrack's network and loss: sections `model` and `loss`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from trackmill.models.losses.objects import TEMPERATURE
from trackmill.models.scaletrack.variants import VARIANTS, Variant
from trackmill.pipeline.tasks.variant_changes import VariantChanges, chosen_variant
from trackmill.schemas.config import Settings

Kind = Literal["chain", "pairwise", "broken_chain", "global_supcon", "global_infonce"]


class ModelSettings(Settings):
    """Section `model`: what is trained, from where, and which parts of it."""

    variant: str = Field("scaletrack_s", description="A name in trackmill.models.scaletrack.variants.")
    changes: VariantChanges = Field(
        default_factory=dict,
        description="Fields of the variant with other values, such as {temporal = false}: the rows of the paper's "
        "table 7, a longer window. The exported file knows them.",
    )
    weights: str = Field(
        "", description="Where all weights start: a checkpoint of this variant, by path or URL; empty: fresh."
    )
    backbone_weights: str = Field(
        "",
        description="The backbone's official checkpoint, by path or URL; `imagenet` (lite0) and `packaged` "
        "(ssdlite_mobilenet) are in packages.",
    )
    freeze: tuple[str, ...] = Field(
        (),
        description="Parts that are not trained, as named in the state dict, beside a frozen backbone; the paper's "
        "table 6 trains that too: changes = {frozen = false}, and optim.groups with a tenth of the rate.",
    )


class LossSection(Settings):
    """Section `loss`: who is compared with whom, see `trackmill.models.losses`."""

    kind: Kind = Field(
        "chain",
        description="chain: every frame with the next (Eqs. 1, 2). Rivals: pairwise (clips of two frames); "
        "broken_chain (disjoint pairs, memory cut likewise); global_supcon, global_infonce (the whole batch, of all "
        "ranks; with optim.accumulate one part of it).",
    )
    temperature: float = Field(TEMPERATURE, gt=0, le=100, description="tau; the paper gives no value [D].")
    layer_weights: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        (), description="Of the loss at each decoder layer's output, the first layer first; empty: 1 each [D]."
    )
    negatives: bool = Field(
        True, description="Whether pseudo-negatives are compared; where objects.negatives names a sidecar."
    )

    @field_validator("layer_weights")
    @classmethod
    def _something_is_learnt(cls, weights: tuple[float, ...]) -> tuple[float, ...]:
        if weights and not any(weights):
            raise ValueError("at least one has to be above 0, or nothing is learnt")
        return weights


def find_variant(model: ModelSettings) -> Variant:
    """The variant of section `model`, with its changes.

    Raises:
        ConfigError: see `chosen_variant`.
    """
    return chosen_variant(model.variant, model.changes, VARIANTS)
