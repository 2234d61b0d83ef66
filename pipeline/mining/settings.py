"""All settings of a mining run in one typed tree: `run.toml` and the command line both end up here.

Sections that change the output are fingerprinted (`trackmill.pipeline.mining.fingerprint`); `run` and `forecast` are
not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, create_model, field_validator

from trackmill.models.outside import choose, is_outside
from trackmill.models.registry import PROPOSERS, proposer_class
from trackmill.pipeline.metrics.settings import MetricsSettings
from trackmill.pipeline.sources import AUTO, SOURCES, settings_class
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.workers.settings import PoolSettings
from trackmill.schemas.config import Settings, build
from trackmill.schemas.errors import InputError

_PROPOSER_SECTION, _SOURCE_SECTION = "proposer_settings", "source_settings"


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


class RunSettings(PoolSettings, MetricsSettings):
    """How the work is run. None of it changes a byte of the output."""

    isolate: bool = Field(
        True,
        description="Read items, and look at files for the plan, in child processes under the two limits below; false: "
        "in the worker itself, for a debugger.",
    )
    item_memory_bytes: int = Field(
        2 << 30, ge=0, description="Most memory that reading one item may take, or it is quarantined; 0: any."
    )
    item_timeout_s: float = Field(
        600.0,
        ge=0,
        description="Seconds that reading an item may take, and that mining it may take for each of its frames, or it "
        "is quarantined and the process that hangs is ended; 0: any.",
    )
    keep_s: float = Field(
        15.0,
        ge=0,
        description="Seconds of work after which the samples of an unfinished unit are kept in work/, for the next try "
        "at it: what a killed worker loses at most; 0: never, and it loses its unit.",
    )
    max_quarantined: str = Field("", description="Exit with 3 above this: a number, or a share like 5%.")


class _Common(Settings):
    source: str = Field(AUTO, description="What the input is, or my_package.my_module:Class.")
    proposer: str = Field("graph", description="What proposes regions, or my_package.my_module:Class.")
    read: ReadSettings = ReadSettings()
    shards: ShardSettings = ShardSettings()
    negatives: NegativeSettings = NegativeSettings()
    run: RunSettings = RunSettings()

    @field_validator("source")
    @classmethod
    def _is_a_source(cls, name: str) -> str:
        return name if name == AUTO or is_outside(name) else choose("source", name, [AUTO, *SOURCES])

    @field_validator("proposer")
    @classmethod
    def _is_a_proposer(cls, name: str) -> str:
        return name if is_outside(name) else choose("proposer", name, PROPOSERS)


if TYPE_CHECKING:

    class MineConfig(_Common):
        """The resolved configuration of one mining run; stored as `config.json` with its output."""

else:
    # One section for each proposer of ours, called like it: a new proposer brings its settings along.
    _SECTIONS = {name: proposer_class(name).Config for name in PROPOSERS}
    MineConfig = create_model(
        "MineConfig",
        __base__=_Common,
        __doc__="The resolved configuration of one mining run; stored as `config.json` with its output.",
        **{name: (section, section()) for name, section in _SECTIONS.items()},
    )


def proposer_section(config: MineConfig) -> str:
    """Name of the section of the chosen proposer: `graph`, `sam`, ...; of one from outside `proposer_settings`."""
    return _PROPOSER_SECTION if is_outside(config.proposer) else config.proposer


def proposer_settings(config: MineConfig) -> Settings:
    """The section of the chosen proposer."""
    section: Settings = getattr(config, proposer_section(config))
    return section


def source_settings(config: MineConfig) -> Settings:
    """The section `source_settings`; no settings at all where nobody gave any and the source needs none."""
    section: Settings = getattr(config, _SOURCE_SECTION, Settings())
    return section


def mine_config(values: dict[str, Any], where: str) -> MineConfig:
    """Check plain values and fill in defaults.

    A proposer or source from outside is imported for it, because it says what its section may hold.

    Raises:
        ConfigError: see `trackmill.schemas.config.build`.
        InputError: see `trackmill.models.registry.proposer_class`, `trackmill.pipeline.sources.settings_class`.
    """
    sections: dict[str, type[Settings]] = {}
    if is_outside(str(values.get("proposer", ""))):
        proposer = proposer_class(values["proposer"])
        if proposer.name in PROPOSERS:
            raise InputError(f"proposer {values['proposer']}: its name {proposer.name!r} is taken; choose another")
        sections[_PROPOSER_SECTION] = proposer.Config
    source = str(values.get("source", AUTO))
    if is_outside(source) or _SOURCE_SECTION in values:
        sections[_SOURCE_SECTION] = settings_class(source)
    if not sections:
        return build(MineConfig, values, where)
    fields: dict[str, Any] = {name: (section, _default(section)) for name, section in sections.items()}
    extended: type[MineConfig] = create_model("MineConfig", __base__=MineConfig, **fields)
    return build(extended, values, where)


def _default(section: type[Settings]) -> Any:
    """A section that may be left out, unless something in it has no default."""
    return ... if any(field.is_required() for field in section.model_fields.values()) else section()
