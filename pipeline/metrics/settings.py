"""Where metrics are told, for the settings of mining and of training."""

from __future__ import annotations

import sys

from pydantic import Field, field_validator

from trackmill.pipeline.metrics.recorder import BackEnd, Recorder
from trackmill.pipeline.storage.urls import basename
from trackmill.schemas.config import Settings


class MetricsSettings(Settings):
    """Metrics for Prometheus; none of it changes what is made. On Ray, its own exporters tell them in any case."""

    metrics_port: int = Field(0, ge=0, le=65535, description="Serve metrics for Prometheus on this port; 0: none.")
    metrics_address: str = Field("127.0.0.1", description="Address that the port listens on; 0.0.0.0: all.")
    metrics_file: str = Field("", description="Write them to this .prom file of this machine, for node_exporter.")

    @field_validator("metrics_file")
    @classmethod
    def _is_read_by_node_exporter(cls, path: str) -> str:
        if path and (not path.endswith(".prom") or "://" in path):
            raise ValueError(f"{path!r} should be a path of this machine that ends in .prom, as node_exporter wants")
        return path


def ray_runs() -> bool:
    """Whether this process is part of a Ray that runs; imports nothing."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def make_recorder(settings: MetricsSettings, output: str, on_ray: bool) -> Recorder:
    """A recorder for a run.

    Args:
        settings: where metrics are told.
        output: root URL of what is made; its last part is the label `run`.
        on_ray: Ray's exporters tell them, too.
    """
    back_ends: list[BackEnd] = []
    if on_ray:
        from trackmill.pipeline.metrics.ray_metrics import RayMetrics

        back_ends.append(RayMetrics())
    if settings.metrics_port or settings.metrics_file:
        from trackmill.pipeline.metrics.prometheus import PrometheusMetrics

        back_ends.append(PrometheusMetrics(settings.metrics_port, settings.metrics_address, settings.metrics_file))
    return Recorder(basename(output), back_ends)
