"""Metrics without Ray: on a port of this process, or in a file for node_exporter's textfile collector."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, start_http_server
from prometheus_client import write_to_textfile as write_whole

from trackmill.pipeline.metrics.definitions import Metric
from trackmill.pipeline.metrics.recorder import label_names

log = logging.getLogger("trackmill")

_WRITE_S = 15.0


class PrometheusMetrics:
    """A `BackEnd` of this process alone.

    Args:
        port: where it is served; 0: nowhere. A port that is taken is a warning, since several parts of one job may run
            on one machine.
        address: that it listens on.
        file: replaced as a whole every quarter of a minute and at the end; "": none.
        write_s: seconds between two writes of the file.
    """

    def __init__(self, port: int, address: str, file: str, write_s: float = _WRITE_S) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._made: dict[str, Counter | Gauge] = {}
        self._file = os.path.expanduser(file)
        self._server = self._thread = None
        self._ended = threading.Event()
        self.port = 0
        """That is served; 0 where none is."""
        if port:
            try:
                self._server, self._thread = start_http_server(port, address, self._registry)
                self.port = port
            except OSError as error:
                log.warning(
                    "metrics are not served: port %d of %s cannot be had (%s); give another port, or a file",
                    port,
                    address,
                    error.strerror or error,
                )
        if self._file:
            self._write()
            self._writer = threading.Thread(target=self._write_on, args=(write_s,), name="metrics", daemon=True)
            self._writer.start()

    def add(self, metric: Metric, value: float, labels: Sequence[str]) -> None:
        """See `BackEnd`."""
        made = self._made.get(metric.name)
        if made is None:
            made = Counter(metric.name, metric.help, label_names(metric), registry=self._registry)
            self._made[metric.name] = made
        assert isinstance(made, Counter)
        made.labels(*labels).inc(value)

    def set(self, metric: Metric, value: float, labels: Sequence[str]) -> None:
        """See `BackEnd`."""
        made = self._made.get(metric.name)
        if made is None:
            made = Gauge(metric.name, metric.help, label_names(metric), registry=self._registry)
            self._made[metric.name] = made
        assert isinstance(made, Gauge)
        made.labels(*labels).set(value)

    def close(self) -> None:
        """The file keeps the last numbers; the port is free again."""
        self._ended.set()
        if self._file:
            self._writer.join()
            self._write()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def _write_on(self, write_s: float) -> None:
        while not self._ended.wait(write_s):
            with contextlib.suppress(OSError):  # a full disk: said when the run ends, if it is still full
                self._write()

    def _write(self) -> None:
        os.makedirs(os.path.dirname(self._file) or ".", exist_ok=True)
        write_whole(self._file, self._registry)  # a temporary file beside it, then a rename
