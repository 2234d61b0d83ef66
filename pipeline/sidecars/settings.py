"""How the making of a sidecar is run."""

from __future__ import annotations

from pydantic import Field

from trackmill.pipeline.workers.settings import PoolSettings


class SidecarRunSettings(PoolSettings):
    """How the work is run; said as `run.KEY`. None of it changes a byte of the sidecar."""

    item_timeout_s: float = Field(
        600.0,
        ge=0,
        description="Seconds that the rows of a sample may take for each of its frames, or it is quarantined and the "
        "worker that hangs is ended; 0: any.",
    )
    max_quarantined: str = Field("", description="Exit with 3 above this: a number of samples, or a share like 5%.")
