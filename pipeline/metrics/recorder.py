"""Recording of metrics: checked against their definitions, and passed to whoever exports them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from trackmill.pipeline.metrics.definitions import BY_NAME, MOST_VALUES, RUN, Metric

log = logging.getLogger("trackmill")

OTHER = "other"


class BackEnd(Protocol):
    """Who exports metrics. `labels` are values in the order of `run` and `Metric.labels`."""

    def add(self, metric: Metric, value: float, labels: Sequence[str]) -> None:
        """A counter grows by `value`, which is above 0."""

    def set(self, metric: Metric, value: float, labels: Sequence[str]) -> None:
        """A gauge has this value now."""

    def close(self) -> None:
        """The last numbers are told."""


class Recorder:
    """Passes numbers of one run on.

    A back end that fails is reported once and left alone: no work ends for want of a number.

    Args:
        run: what the label `run` says.
        back_ends: who exports; none costs nothing.
        clock: Unix time; for tests.
    """

    def __init__(self, run: str, back_ends: Sequence[BackEnd], clock: Callable[[], float] = time.time) -> None:
        self._run, self._back_ends, self.clock = run, list(back_ends), clock
        self._seen: dict[tuple[str, str], set[str]] = {}

    def __bool__(self) -> bool:
        """Whether anybody listens."""
        return bool(self._back_ends)

    def add(self, name: str, value: float = 1, /, **labels: str) -> None:
        """Let a counter grow; by nothing is nothing."""
        metric = _defined(name, "counter")
        if value > 0 and math.isfinite(value):
            self._each(lambda back_end: back_end.add(metric, value, self._values(metric, labels)))

    def set(self, name: str, value: float, /, **labels: str) -> None:
        """Set a gauge."""
        metric = _defined(name, "gauge")
        self._each(lambda back_end: back_end.set(metric, float(value), self._values(metric, labels)))

    def set_now(self, name: str) -> None:
        """Set a gauge to the time."""
        self.set(name, self.clock())

    def close(self) -> None:
        """The run is over."""
        self._each(lambda back_end: back_end.close())
        self._back_ends = []

    def _values(self, metric: Metric, labels: dict[str, str]) -> list[str]:
        assert labels.keys() == set(metric.labels), f"{metric.name} has the labels {metric.labels}, not {labels}"
        return [self._run, *(self._bounded(metric, label, labels[label]) for label in metric.labels)]

    def _bounded(self, metric: Metric, label: str, value: str) -> str:
        seen = self._seen.setdefault((metric.name, label), set())
        if value not in seen and len(seen) >= MOST_VALUES:
            return OTHER
        seen.add(value)
        return value

    def _each(self, action: Callable[[BackEnd], None]) -> None:
        for back_end in list(self._back_ends):
            try:
                action(back_end)
            except AssertionError:
                raise
            except Exception as error:
                self._back_ends.remove(back_end)
                log.warning("metrics are told no more by %s: %s", type(back_end).__name__, error)


def label_names(metric: Metric) -> tuple[str, ...]:
    """All labels of a metric, `run` first."""
    return (RUN, *metric.labels)


def _defined(name: str, kind: str) -> Metric:
    metric = BY_NAME[name]
    assert metric.kind == kind, f"{name} is a {metric.kind}"
    return metric
