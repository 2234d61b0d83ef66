"""IP-MOT's entry in the registry: its settings, how the tracker is built, how its files are recognised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from trackmill.models.ipmot.metadata import recognise as recognise
from trackmill.models.ipmot.variants import VARIANTS
from trackmill.schemas.config import Settings

if TYPE_CHECKING:
    import torch

    from trackmill.models.ipmot.video_model import IpMotTracker


class Config(Settings):
    """Which IP-MOT, and how it tracks (`trackmill.models.ipmot.stream.StreamSettings`); None: as the variant says."""

    variant: str = Field("ip_mot", description="A name in trackmill.models.ipmot.variants.")
    seed: int = Field(0, description="Of fresh weights; the same seed gives the same ones.")
    score_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Least score of a track that is seen, and of a new one (0.5). A track below the variant's "
        "keep_threshold (0.5) is then output, but its query stays as it is.",
    )
    miss_tolerance: int | None = Field(
        None, ge=1, description="Frames in a row without being seen after which a track ends (15; 30 for DanceTrack)."
    )
    min_area: float | None = Field(
        None, ge=0, description="Boxes of at most so many square pixels of the frame are not output (100)."
    )
    short_side: int | None = Field(
        None, ge=32, le=16384, description="Pixels to which the shorter side of frames is scaled (800)."
    )
    long_side: int | None = Field(
        None, ge=32, le=16384, description="Pixels that the longer side then has at most (1536)."
    )
    max_tracks: int = Field(1000, ge=1, le=100_000, description="Live tracks at most, seen or not.")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16: faster on a GPU, with rounded numbers."
    )


def build(
    config: Config, tensors: Mapping[str, torch.Tensor] | None = None, device: str | torch.device = "cpu"
) -> IpMotTracker:
    """A tracker around a network in evaluation mode, see `trackmill.models.ipmot.load`.

    Args:
        config: the variant and how it tracks.
        tensors: a `Checkpoint` or any mapping; None: fresh weights.
        device: where it is put.

    Raises:
        ValueError: an unknown variant, settings that do not go together, or tensors that do not fit; names each.
        ImportError: a package is missing.
    """
    from trackmill.models.ipmot.loading import load_model
    from trackmill.models.ipmot.stream import StreamSettings
    from trackmill.models.ipmot.video_model import IpMotTracker

    network = load_model(config.variant, tensors, device=device, seed=config.seed)
    changes = config.model_dump(exclude={"variant", "seed"})
    return IpMotTracker(network, StreamSettings.of(network.variant, **changes))


def frame_size(config: Config) -> tuple[int, int]:
    """(longer, shorter) side in pixels at which frames are looked at."""
    variant = VARIANTS[config.variant]
    return config.long_side or variant.long_side, config.short_side or variant.short_side
