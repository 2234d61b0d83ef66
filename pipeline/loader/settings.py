"""Section `data` of a recipe: how training reads samples."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trackmill.schemas.config import Settings


class DataSettings(Settings):
    """How shards become batches. `url`, `batch_size`, `streams` and `window` decide the order of samples."""

    url: str = Field("", description="Root of the data set that mining wrote; --data says the same.")
    batch_size: int = Field(64, gt=0, description="Samples of one optimiser step, over all ranks together.")
    streams: int = Field(
        0,
        ge=0,
        description="Number of equal streams that an epoch is cut into; ranks and workers own whole streams, so it "
        "must be a multiple of ranks x workers and divide the batch. 0: as many as the batch allows, 64 at most, or "
        "one for each worker of all ranks where those are more; a run that goes on keeps the number it began with.",
    )
    window: int = Field(
        1024, gt=0, description="Samples of a stream that are shuffled among each other; larger mixes shards better."
    )
    workers: int = Field(2, ge=0, description="Processes that read and augment, for each rank; 0: the rank itself.")
    prefetch: int = Field(2, gt=0, description="Batches that each worker prepares ahead.")
    cache: str = Field("", description="Local folder that keeps remote shards, shared by all processes of a machine.")
    cache_bytes: int = Field(
        64 << 30, gt=0, description="Limit of that folder; the least recently used shards go first."
    )
    verify: Literal["samples", "frames", "off"] = Field(
        "samples",
        description="samples: the bytes of each sample against the checksum in its receipt, at no price that shows; of "
        "data sets that older versions mined, each shard against its SHA-256 when a process first opens it, or frames "
        "where it opens none. frames: each JPEG against the SHA-256 in its record. off: only what decoding notices.",
    )
    max_bad: float = Field(
        0.05, ge=0, le=1, description="Share of bad samples in the data set above which the run stops and names some."
    )
