"""What a recipe says about telemetry: section `telemetry`. None of it changes what is learnt."""

from __future__ import annotations

import importlib.util
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from trackmill.pipeline.metrics.settings import MetricsSettings
from trackmill.schemas.errors import MissingPackage
from trackmill.schemas.install import install


class TelemetrySettings(MetricsSettings):
    """Where metrics go beside `metrics.jsonl`, which is always written."""

    every: int = Field(10, gt=0, description="Steps between two reports; ranks average their numbers once for each.")
    tensorboard: bool = Field(True, description="Event files under OUTPUT/tensorboard.")
    mlflow: str = Field(
        "",
        description="Tracking URI of an MLflow server; empty: off. Its experiment is MLFLOW_EXPERIMENT_NAME of the "
        "environment, or trackmill.",
    )
    wandb: str = Field("", description="Project at Weights & Biases; empty: off. Offline without a login.")
    run_name: str = Field("", description="Name of the run there; empty: the last part of the output's URL.")
    upload_s: float = Field(60, gt=0, description="Least seconds between two uploads to an output that is not local.")

    @field_validator("mlflow")
    @classmethod
    def _no_password(cls, uri: str) -> str:
        if "://" in uri and "@" in urlsplit(uri).netloc:
            raise ValueError(
                "no user name or password in the URI; put them into the environment, MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD"
            )
        return uri


def require_packages(settings: TelemetrySettings) -> None:
    """Check that every package is there that was asked for; imports none, so it can be asked before workers start.

    Raises:
        ImportError: one is missing; says what to type.
    """
    wanted = (
        ("tensorboard", "train", settings.tensorboard, "false"),
        ("mlflow", "mlflow", settings.mlflow, '""'),
        ("wandb", "wandb", settings.wandb, '""'),
    )
    for package, extra, asked, off in wanted:
        if asked and importlib.util.find_spec(package) is None:
            raise MissingPackage(
                f"telemetry.{package} needs a package that is not installed: {install(extra)} "
                f"(or telemetry.{package} = {off})"
            )
