"""How the making of a sidecar is run."""

from __future__ import annotations

from typing import Any

from pydantic import Field, create_model

from trackmill.pipeline.workers.settings import PoolSettings
from trackmill.schemas.config import Settings
from trackmill.schemas.errors import InputError


class SidecarRunSettings(PoolSettings):
    """How the work is run; said as `run.KEY`. None of it changes a byte of the sidecar."""

    item_timeout_s: float = Field(
        600.0,
        ge=0,
        description="Seconds that the rows of a sample may take for each of its frames, or it is quarantined and the "
        "worker that hangs is ended; 0: any.",
    )
    max_quarantined: str = Field("", description="Exit with 3 above this: a number of samples, or a share like 5%.")


def with_run(config: type[Settings]) -> type[Settings]:
    """The settings of a producer, and beside them `run`: how its sidecar is made.

    Raises:
        InputError: the producer has a setting `run` of its own.
    """
    if "run" in config.model_fields:
        raise InputError(
            f"{config.__name__}: `run` is how a sidecar is made; call the producer's own setting otherwise"
        )
    section: Any = (SidecarRunSettings, SidecarRunSettings())
    made: type[Settings] = create_model("SidecarConfig", __base__=config, run=section)
    return made


class RunSection(Settings):
    """The section `run` alone, for options that change it."""

    run: SidecarRunSettings = SidecarRunSettings()
