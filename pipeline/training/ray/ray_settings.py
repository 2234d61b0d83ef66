"""What a recipe says about Ray: section `ray`."""

from __future__ import annotations

from pydantic import Field

from trackmill.schemas.config import Settings


class RaySettings(Settings):
    """How ranks are placed and how often they are started again; none of it changes what is learnt."""

    max_failures: int = Field(
        3,
        ge=-1,
        description="All ranks are started again so often, without a new checkpoint in between, after one of them "
        "failed; -1: without end. Machines that the cluster takes back with notice do not count.",
    )
    start_timeout_s: float = Field(
        600.0, gt=0, description="Seconds that Ray may take to start, or a cluster to answer, with one more try."
    )
    cpus_per_worker: float = Field(
        1.0,
        gt=0,
        description="CPUs that Ray keeps free for each rank, and threads that torch computes with there. On a cluster "
        "with other work, one more than data.workers.",
    )
