"""ScaleTrack's entry in the registry: its settings, how it is built, how its files are recognised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from trackmill.models.scaletrack.metadata import recognise as recognise
from trackmill.models.scaletrack.variants import VARIANTS
from trackmill.schemas.config import Settings

if TYPE_CHECKING:
    import torch

    from trackmill.models.detectors.frame_scaling import FrameScaling
    from trackmill.models.scaletrack.detic_detector import SharedFeatures
    from trackmill.models.scaletrack.model import ScaleTrack


class Config(Settings):
    """Which ScaleTrack, and how it starts; see `trackmill.models.scaletrack.load`."""

    variant: str = Field("scaletrack_s", description="A name in trackmill.models.scaletrack.variants.")
    pretrained: Literal["", "imagenet", "packaged"] = Field(
        "", description="imagenet (scaletrack_lite0): the backbone's published weights, where no checkpoint is given."
    )
    seed: int = Field(0, description="Of fresh weights; the same seed gives the same ones.")


def build(
    config: Config, tensors: Mapping[str, torch.Tensor] | None = None, device: str | torch.device = "cpu"
) -> ScaleTrack:
    """A network in evaluation mode, see `trackmill.models.scaletrack.load`.

    Args:
        config: the variant and how it starts.
        tensors: a `Checkpoint` or any mapping, of ours or of the backbone alone; None: fresh weights, or what
            `config.pretrained` says.
        device: where it is put.

    Raises:
        ValueError: an unknown variant, or tensors that do not fit it; names each.
        ImportError: a package is missing.
    """
    from trackmill.models.scaletrack.loading import load_model

    source = tensors if tensors is not None else config.pretrained or None
    return load_model(config.variant, source, device=device, seed=config.seed)


def frame_size(config: Config) -> tuple[int, int]:
    """(longer, shorter) side in pixels: of the square that the network reads; on Detic's backbone, Detic's own."""
    variant = VARIANTS[config.variant]
    if variant.backbone == "detic_swinb":
        return 1333, 800
    return variant.side, variant.side


def own_detectors(config: Config) -> dict[str, str]:
    """Detectors that work on the model's maps: what `--detections` says, and the class."""
    if VARIANTS[config.variant].backbone == "detic_swinb":
        return {"detic": "trackmill.models.scaletrack.detic_detector:UnifiedDeticDetector"}
    return {}


def features(network: ScaleTrack, scaling: FrameScaling, device: str | torch.device) -> SharedFeatures:
    """Maps of a batch of frames, computed once for detection and embedding."""
    from trackmill.models.scaletrack.detic_detector import SharedFeatures

    return SharedFeatures(network, scaling)


def default_tracker(config: Config) -> str:
    """The paper's rule."""
    return "scaletrack"
