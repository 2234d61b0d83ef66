"""MLflow: parameters once, numbers as they come, the same run again after a restart."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Mapping
from typing import Any

from trackmill.pipeline.training.telemetry.sinks import Scalars

_METRICS, _PARAMS = 1000, 100
"""Most of each in one request to a tracking server."""
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


class MlflowSink:
    """Logs to a tracking server.

    Args:
        uri: of the server; user name and password come from the environment.
        run_name: shown there.
        config: flat; becomes parameters of a new run.
        run_id: of an earlier attempt. Numbers that it has logged already are not logged twice: a resumed run gives
            the same ones again.
    """

    name = "MLflow"

    def __init__(self, uri: str, run_name: str, config: Mapping[str, Any], run_id: str | None) -> None:
        # Nobody else is told of this run, and a server that is gone is given up within a minute.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
        from mlflow.entities import Metric, Param
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        self._client = MlflowClient(tracking_uri=uri)
        self._last: dict[str, int] = {}
        self._continued = False
        if run_id:
            try:
                self._client.update_run(run_id, status="RUNNING")
                self._continued = True
            except MlflowException:
                run_id = None  # deleted, or another server: a new run; if the server is gone that fails as well
        self.run_id: str = run_id or self._create(run_name)
        if not self._continued:
            params = [Param(_key(name), str(value)[:6000]) for name, value in config.items()]
            for begin in range(0, len(params), _PARAMS):
                self._client.log_batch(self.run_id, params=params[begin : begin + _PARAMS], synchronous=True)

    def scalars(self, scalars: Scalars) -> None:
        """Log what is finite and new."""
        now = int(time.time() * 1000)
        metrics = [
            self._metric(_key(tag), value, now, step)
            for step, values in scalars
            for tag, value in values.items()
            if math.isfinite(value) and step > self._logged(tag)
        ]
        for begin in range(0, len(metrics), _METRICS):
            self._client.log_batch(self.run_id, metrics=metrics[begin : begin + _METRICS], synchronous=True)

    def sync(self) -> None:
        """Nothing is held back."""

    def close(self, status: str) -> None:
        """Tell the server how it ended."""
        self._client.set_terminated(self.run_id, _STATUS.get(status, "FAILED"))

    def _create(self, run_name: str) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "trackmill")
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(name)
        return str(self._client.create_run(experiment_id, run_name=run_name).info.run_id)

    def _logged(self, tag: str) -> int:
        """Last step that an earlier attempt logged, asked for once a tag."""
        if not self._continued:
            return -1
        if tag not in self._last:
            history = self._client.get_metric_history(self.run_id, _key(tag))
            self._last[tag] = max((metric.step for metric in history), default=-1)
        return self._last[tag]


def _key(name: str) -> str:
    """With the characters that MLflow takes."""
    return re.sub(r"[^\w./ -]", "_", name)
