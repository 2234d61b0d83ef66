"""Metrics through Ray: each node's agent exports them, by the names of `definitions` with `ray_` before them."""

from __future__ import annotations

from collections.abc import Sequence

from ray.util.metrics import Counter, Gauge

from trackmill.pipeline.metrics.definitions import Metric
from trackmill.pipeline.metrics.recorder import label_names


class RayMetrics:
    """A `BackEnd`. Ray's objects are made when a number is first told, since Ray must have been started by then."""

    def __init__(self) -> None:
        self._made: dict[str, Counter | Gauge] = {}

    def add(self, metric: Metric, value: float, labels: Sequence[str]) -> None:
        """See `BackEnd`."""
        made = self._made.get(metric.name)
        if made is None:
            made = self._made[metric.name] = Counter(metric.name, metric.help, tag_keys=label_names(metric))
        assert isinstance(made, Counter)
        made.inc(value, dict(zip(label_names(metric), labels, strict=True)))

    def set(self, metric: Metric, value: float, labels: Sequence[str]) -> None:
        """See `BackEnd`."""
        made = self._made.get(metric.name)
        if made is None:
            made = self._made[metric.name] = Gauge(metric.name, metric.help, tag_keys=label_names(metric))
        assert isinstance(made, Gauge)
        made.set(value, dict(zip(label_names(metric), labels, strict=True)))

    def close(self) -> None:
        """Nothing: Ray's agent sends what it has."""
