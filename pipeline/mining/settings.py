"""Everything a mining run can be told, in one typed tree: `run.toml` and the command line both end up here.

Sections that change the output are fingerprinted (`trackmill.pipeline.mining.fingerprint`); `run` and `forecast` are
not.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from trackmill.models.proposers import AnnotationSettings, GraphSettings, SamSettings
from trackmill.models.registry import PROPOSERS, choose, is_outside, proposer_class
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.schemas.config import Settings, build


class ShardSettings(Settings):
    """Size of the work units and of the tars they become. All of it changes the output."""

    max_bytes: int = Field(256 << 20, gt=0, description="A shard is closed before it would grow past this.")
    max_samples: int = Field(4096, gt=0, description="Most samples in one shard.")
    unit_frames: int = Field(
        0,
        ge=0,
        description="Frames in one unit of work: what a killed worker loses, and the size of a shard. "
        "0: a sixty-fourth of the corpus, between 8 and 512 frames.",
    )


class NegativeSettings(Settings):
    """Which proposals count as pseudo-negatives."""

    max_iou: float = Field(
        0.5, gt=0, le=1, description="A proposal that overlaps an annotated object so much or more is no negative."
    )


class RunSettings(Settings):
    """How the work is run. None of it changes a byte of the output."""

    executor: Literal["ray", "inline"] = Field("ray", description="ray: a pool of actors; inline: this process.")
    actors: int = Field(0, ge=0, description="Size of the pool; 0: one per GPU or CPU, following the cluster.")
    gpus_per_actor: float = Field(-1, description="-1: one where the cluster has GPUs and the proposer can use one.")
    cpus_per_actor: float = Field(1, ge=0, description="CPUs that Ray reserves for each actor.")
    memory_per_actor: int = Field(0, ge=0, description="Bytes that Ray reserves for each actor; 0: none.")
    threads: int = Field(0, ge=0, description="Threads that an actor's libraries may use; 0: its CPUs, at least one.")
    recycle_after: int = Field(
        -1,
        ge=-1,
        description="Items after which an actor is replaced; 0: never; -1: 2000, or never for one that holds a GPU, "
        "which would wait for its successor to load the model.",
    )
    ray_start_timeout_s: float = Field(
        600.0, gt=0, description="Seconds that Ray may take to start, or a cluster to answer, with one more try."
    )
    progress_s: float = Field(10.0, gt=0, description="Seconds between progress lines in a log.")
    watchdog_s: float = Field(120.0, gt=0, description="Warn, naming the stage, when no item is finished for so long.")
    max_quarantined: str = Field("", description="Exit with 3 above this: a number, or a share like 5%.")


class MineConfig(Settings):
    """The resolved configuration of one mining run; stored as `config.json` with its output."""

    source: Literal["auto", "sa1b", "sav", "images", "videos", "mot"] = "auto"
    proposer: str = Field("graph", description="A key of trackmill.models.registry.PROPOSERS, or package.module:Class.")
    read: ReadSettings = ReadSettings()
    shards: ShardSettings = ShardSettings()
    negatives: NegativeSettings = NegativeSettings()
    graph: GraphSettings = GraphSettings()
    annotations: AnnotationSettings = AnnotationSettings()
    sam: SamSettings = SamSettings()
    outside: dict[str, Any] = Field({}, description="Settings of a proposer of your own (package.module:Class).")
    run: RunSettings = RunSettings()

    @field_validator("proposer")
    @classmethod
    def _known(cls, name: str) -> str:
        return name if is_outside(name) else choose("proposer", name, PROPOSERS)

    @model_serializer(mode="wrap")
    def _without_empty_outside(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What is stored with a data set stays as it was before others' proposers were possible.
        values: dict[str, Any] = handler(self)
        return values if self.outside else {key: value for key, value in values.items() if key != "outside"}


def proposer_settings(config: MineConfig) -> Settings:
    """The section of the chosen proposer.

    Raises:
        ConfigError: it is one of somebody else's, and `outside` does not fit its `Config`.
    """
    if config.proposer in PROPOSERS:
        section: Settings = getattr(config, config.proposer)
        return section
    return build(proposer_class(config.proposer).Config, config.outside, "outside")


def with_proposer_settings(config: MineConfig, settings: Settings) -> MineConfig:
    """`config` with other settings of the chosen proposer."""
    if config.proposer in PROPOSERS:
        return config.model_copy(update={config.proposer: settings})
    return config.model_copy(update={"outside": settings.model_dump(mode="json")})


def mine_config(values: dict[str, Any], where: str) -> MineConfig:
    """Check plain values and fill in defaults.

    Raises:
        ConfigError: see `trackmill.schemas.config.build`.
    """
    return build(MineConfig, values, where)
