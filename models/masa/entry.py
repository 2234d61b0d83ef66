"""MASA's entry in the registry: its settings, how it is built, how its checkpoints are recognised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from trackmill.models.masa.variants import VARIANTS
from trackmill.models.masa.variants import recognise as recognise
from trackmill.schemas.config import Settings

if TYPE_CHECKING:
    import torch

    from trackmill.models.detectors.frame_scaling import FrameScaling
    from trackmill.models.masa.frame_features import FrameFeatures
    from trackmill.models.masa.masks import SamMasks
    from trackmill.models.masa.model import Masa


class Config(Settings):
    """Which MASA, and how it starts; see `trackmill.models.masa.load`."""

    variant: str = Field("masa_r50", description="A name in trackmill.models.masa.variants.")
    compatible_offsets: bool | None = Field(
        None, description="How the coarser level is sampled; leave it out unless you know (trackmill.models.masa.load)."
    )
    pretrained: Literal["", "imagenet"] = Field(
        "",
        description="imagenet (masa_lite0(_colour)): the backbone's published weights, where no checkpoint is given.",
    )
    seed: int = Field(0, description="Of fresh weights; the same seed gives the same ones.")


def build(
    config: Config, tensors: Mapping[str, torch.Tensor] | None = None, device: str | torch.device = "cpu"
) -> Masa:
    """A network in evaluation mode, see `trackmill.models.masa.load`.

    Args:
        config: the variant and how it starts.
        tensors: a `Checkpoint` or any mapping; None: fresh weights, or what `config.pretrained` says.
        device: where it is put.

    Raises:
        ValueError: an unknown variant, or tensors that do not fit it; names each.
        ImportError: a package is missing.
    """
    from trackmill.models.masa.loading import load_model

    return load_model(
        config.variant,
        tensors if tensors is not None else config.pretrained or None,
        compatible_offsets=config.compatible_offsets,
        device=device,
        seed=config.seed,
    )


def frame_size(config: Config) -> tuple[int, int]:
    """(longer, shorter) side in pixels that the released benchmarks fit frames into."""
    return VARIANTS[config.variant].resize


def features(network: Masa, scaling: FrameScaling, device: str | torch.device) -> FrameFeatures:
    """Maps of a batch of frames, computed once for everyone who asks: embedding, proposals, masks."""
    from trackmill.models.masa.frame_features import FrameFeatures

    return FrameFeatures(network, scaling, device)


def own_detectors(config: Config) -> dict[str, str]:
    """Detectors that are in the model's checkpoint and work on its maps: what `--detections` says, and the class.

    masa_gdino's own is not run: Grounding DINO beside it (`hf:...`) has a backbone of its own.
    """
    if VARIANTS[config.variant].backbone == "swin_b_window7":
        return {"detic": "trackmill.models.masa.detic_detector:MasaDeticDetector"}
    return {}


def has_masks(config: Config) -> bool:
    """Whether `segmenter` can be had: the variant stands on SAM."""
    return VARIANTS[config.variant].backbone.startswith("sam_")


def segmenter(features: FrameFeatures) -> SamMasks:
    """SAM's mask decoder on those maps.

    Raises:
        ValueError: the variant does not stand on SAM.
    """
    from trackmill.models.masa.masks import SamMasks

    return SamMasks(features)
