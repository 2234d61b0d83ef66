"""What rank 0 tells while it trains: files under the output, curves elsewhere, progress and events for people."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

import orjson

from trackmill.pipeline.metrics.settings import make_recorder, ray_runs
from trackmill.pipeline.storage.credentials import scrub, scrub_values
from trackmill.pipeline.storage.files import exists, read_bytes
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.storage.urls import basename, canonical, join
from trackmill.pipeline.training.telemetry.lines import JsonLines
from trackmill.pipeline.training.telemetry.metrics import TrainingMetrics
from trackmill.pipeline.training.telemetry.progress import TrainingProgress
from trackmill.pipeline.training.telemetry.settings import TelemetrySettings, require_packages
from trackmill.pipeline.training.telemetry.sinks import Background, Scalars, Sink
from trackmill.pipeline.training.telemetry.tags import tagged
from trackmill.schemas.config import flatten


class Telemetry:
    """Writes `metrics.jsonl` (one object a step), `evaluations.jsonl`, `events.jsonl` and tells the sinks.

    On ranks other than 0 every call does nothing. A resumed run cuts the files back to `start_step`, so that they read
    as if it had never been disturbed; events are all kept. A sink that fails is reported once and left alone, for
    training must not end for want of a curve. Calls come from one thread.

    Args:
        settings: section `telemetry`.
        output: root of the run, any URL.
        total_steps: of the whole run.
        start_step: optimiser steps done before; the first row is step `start_step` + 1.
        samples_per_step: over all ranks.
        config: the resolved recipe.
        rank: of this process.
        ranks: how many there are.
        stream: for progress and events; stderr.
        clock: for tests.

    Raises:
        ImportError: a sink that was asked for is not installed; says what to type.
        OSError: the output cannot be read or written.
    """

    def __init__(
        self,
        settings: TelemetrySettings,
        output: str,
        *,
        total_steps: int,
        start_step: int = 0,
        samples_per_step: int,
        config: Mapping[str, Any] | None = None,
        rank: int = 0,
        ranks: int = 1,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on = rank == 0
        if not self._on:
            return
        require_packages(settings)
        self._output = output = canonical(output)
        self._total_steps, self._last_step = total_steps, start_step
        self._progress = TrainingProgress(total_steps, start_step, samples_per_step, stream=stream, clock=clock)
        upload_s = settings.upload_s
        self._events = JsonLines(join(output, "events.jsonl"), keep_to=None, upload_s=upload_s)
        self._metrics = JsonLines(join(output, "metrics.jsonl"), keep_to=start_step, upload_s=upload_s)
        self._evaluations = JsonLines(join(output, "evaluations.jsonl"), keep_to=start_step, upload_s=upload_s)
        last = self._metrics.last_step or 0
        if last != start_step:
            self.event(f"metrics.jsonl ends at step {last:,}, and training goes on after step {start_step:,}")
        recorder = make_recorder(settings, output, ray_runs())
        self._numbers: TrainingMetrics | None = None
        if recorder:
            self._numbers = TrainingMetrics(
                recorder,
                output,
                recipe=str((config or {}).get("name", "")),
                task=str((config or {}).get("task", "")),
                total_steps=total_steps,
                start_step=start_step,
                samples_per_step=samples_per_step,
                ranks=ranks,
            )
        self._sinks: list[Sink] = []
        self._start_sinks(settings, start_step, scrub_values(config or {}))

    def steps(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Numbers of finished steps, in order, at least `step` and `loss` each; see `tags.GROUPS` for other names.

        Raises:
            ValueError: a step does not follow the one before.
            OSError: a local output cannot be written.
        """
        if not self._on or not rows:
            return
        self._metrics.append(rows)
        self._last_step = int(rows[-1]["step"])
        self._progress.row(rows[-1])
        if self._numbers is not None:
            self._numbers.steps(rows)
        self._send([(int(row["step"]), tagged(row)) for row in rows])

    def tick(self, step: int) -> None:
        """`step` is done, its numbers follow later: moves the progress line where steps are slow."""
        if self._on:
            self._progress.tick(step)
            if self._numbers is not None:
                self._numbers.tick(step)

    def evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Results of an evaluation after `step`, whose own row comes first. The same step again changes nothing."""
        if not self._on or (self._evaluations.last_step is not None and step <= self._evaluations.last_step):
            return
        self._evaluations.append([{"step": step, **values}])
        if self._numbers is not None:
            self._numbers.evaluation({name: float(value) for name, value in values.items()})
        shown = ", ".join(f"{name} {float(value):.4g}" for name, value in values.items())
        self.event(f"evaluation after step {step:,}: {shown}")
        self._send([(step, {f"evaluation/{name}": float(value) for name, value in values.items()})])

    def evaluated(self, step: int) -> dict[str, float] | None:
        """Results of the evaluation after `step`, where it is the last that is written; None on other ranks."""
        if not self._on or self._evaluations.last_step != step:
            return None
        values = {name: value for name, value in self._evaluations.last_row.items() if name != "step"}
        return {name: math.nan if value is None else float(value) for name, value in values.items()}

    def checkpoint(self, step: int, seconds: float, num_bytes: int) -> None:
        """A checkpoint was written, in so many seconds; for metrics alone."""
        if self._on and self._numbers is not None:
            self._numbers.checkpoint(step, seconds, num_bytes)

    def event(self, text: str) -> None:
        """One line for people, without credentials, and the same with its time in `events.jsonl`."""
        if not self._on:
            return
        self._note(text)

    def sync(self) -> None:
        """Store everything said so far; before a checkpoint, so that a resumed run finds the lines up to it.

        Raises:
            OSError: it could not be stored.
        """
        if not self._on:
            return
        for lines in (self._metrics, self._evaluations, self._events):
            lines.sync()
        self._each(lambda sink: sink.sync())

    def __enter__(self) -> Telemetry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            self.event(f"failed: {type(error).__name__}: {error}")
        self.close("failed" if isinstance(error, Exception) else "")

    def close(self, status: str = "") -> None:
        """Store everything and end the sinks' runs.

        Args:
            status: `finished`, `stopped` (to be continued) or `failed`; empty: finished where the last step is done,
                stopped otherwise. After a failure nothing is raised here, so that its own error is the one that is
                seen.

        Raises:
            OSError: the files could not be stored.
        """
        if not self._on:
            return
        status = status or ("finished" if self._last_step >= self._total_steps else "stopped")
        self._on = False
        self._progress.close()
        if self._numbers is not None:
            self._numbers.close()
        self._each(lambda sink: sink.close(status))
        for lines in (self._metrics, self._evaluations, self._events):
            try:
                lines.close()
            except OSError as error:
                if status != "failed":
                    raise
                self._progress.say(scrub(f"{basename(lines.url)} could not be stored: {error}"))

    def _start_sinks(self, settings: TelemetrySettings, start_step: int, config: dict[str, Any]) -> None:
        url = join(self._output, "telemetry.json")
        # A run that starts from nothing is another run there too, whatever ran here before.
        ids = self._known_ids(url) if start_step else {}
        name = settings.run_name or basename(self._output)

        def tensorboard() -> Sink:
            from trackmill.pipeline.training.telemetry.tensorboard_sink import TensorBoardSink

            return TensorBoardSink(join(self._output, "tensorboard"), start_step, settings.upload_s)

        def mlflow() -> Sink:
            from trackmill.pipeline.training.telemetry.mlflow_sink import MlflowSink

            sink = MlflowSink(settings.mlflow, name, flatten(config), ids.get("mlflow"))
            ids["mlflow"] = sink.run_id
            return Background(sink)

        def wandb() -> Sink:
            from trackmill.pipeline.training.telemetry.wandb_sink import WandbSink

            sink = WandbSink(settings.wandb, name, config, self._output, ids.get("wandb"))
            ids["wandb"] = sink.run_id
            if sink.notice:
                self._note(sink.notice)
            return Background(sink)

        wanted = ((settings.tensorboard, tensorboard), (settings.mlflow, mlflow), (settings.wandb, wandb))
        for _, start in (entry for entry in wanted if entry[0]):
            try:
                self._sinks.append(start())
            except Exception as error:
                self._switched_off(start.__name__, error)
        if ids:
            publish_bytes(url, orjson.dumps(ids))

    def _known_ids(self, url: str) -> dict[str, str]:
        try:
            ids = orjson.loads(read_bytes(url)) if exists(url) else {}
        except ValueError:
            ids = {}
        return {str(name): str(value) for name, value in ids.items()} if isinstance(ids, dict) else {}

    def _send(self, scalars: Scalars) -> None:
        self._each(lambda sink: sink.scalars(scalars))

    def _each(self, action: Callable[[Sink], None]) -> None:
        for sink in list(self._sinks):
            try:
                action(sink)
            except Exception as error:
                self._sinks.remove(sink)
                self._switched_off(sink.name, error)

    def _switched_off(self, name: str, error: Exception) -> None:
        self._note(f"{name} is switched off for the rest of this run: {type(error).__name__}: {error}")

    def _note(self, text: str) -> None:
        text = " ".join(scrub(text).split())
        self._progress.say(text)
        self._events.append([{"time": datetime.now(UTC).isoformat(timespec="seconds"), "text": text}])
