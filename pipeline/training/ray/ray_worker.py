"""What each worker of Ray Train runs, and how rank 0 and the driver talk."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TextIO

import ray
import ray.train
import ray.train.torch
from ray.exceptions import RayError

from trackmill.pipeline.console.exit_codes import ExitCode, exit_code_of
from trackmill.pipeline.storage.credentials import adopt_environment, redact, scrub
from trackmill.pipeline.storage.names import printable
from trackmill.pipeline.training.health import NonFinite, NothingLearnt
from trackmill.pipeline.training.launch import worker
from trackmill.pipeline.training.loop import TrainingResult
from trackmill.pipeline.training.ranks import OtherRankFailed
from trackmill.pipeline.training.steps import BadLosses

_STOP_POLL_S = 1.0
_FINAL = (ValueError, ImportError, NonFinite, NothingLearnt, BadLosses)
"""Errors that the next attempt would meet again."""


class RankFailed(Exception):
    """Why a rank gave up, as plain text without credentials, since it passes through Ray's logs.

    Args:
        text: one line.
        final: another attempt would fail as well.
        code: the job's exit code, see `exit_code_of`; None for a bug.
        collateral: only a consequence of another rank's failure.
        traceback: of the rank; many lines.
    """

    def __init__(
        self,
        text: str,
        final: bool = False,
        code: ExitCode | None = ExitCode.FAILED,
        collateral: bool = False,
        traceback: str = "",
    ) -> None:
        super().__init__(text, final, code, collateral, traceback)
        self.text, self.final, self.code, self.collateral, self.traceback = text, final, code, collateral, traceback

    def __str__(self) -> str:
        return self.text


@ray.remote(num_cpus=0, max_restarts=-1)
class Desk:
    """Takes words from rank 0 to the driver, and the wish to stop the other way."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._stopping = False

    def say(self, text: str) -> None:
        """Leave a text for the terminal."""
        self._texts.append(text)

    def take(self) -> list[str]:
        """The texts since the last time."""
        texts, self._texts = self._texts, []
        return texts

    def stop(self) -> None:
        """Ask the ranks to save and stop."""
        self._stopping = True

    def stopping(self) -> bool:
        """Whether they were asked to."""
        return self._stopping


@dataclass(frozen=True, kw_only=True)
class Rank:
    """What each worker runs. It travels as an object of Ray, whose content neither logs nor the dashboard show."""

    values: dict[str, Any]
    output: str
    resume: str
    allowed: tuple[str, ...]
    use_gpu: bool
    desk: Any
    terminal: bool
    folder: str
    environment: dict[str, str] = field(repr=False)

    def __call__(self) -> TrainingResult:
        adopt_environment(self.environment)
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        for name in ("", "ray.train"):
            logging.getLogger(name).setLevel(logging.WARNING)  # Ray Train tells of each report, partly as the root
        if os.path.isdir(self.folder):
            os.chdir(self.folder)
        first = ray.train.get_context().get_world_rank() == 0
        # One rank speaks and listens for all: it tells nothing that others would not, and the wish to stop is shared.
        with _speaking(self.desk, self.terminal) if first else contextlib.nullcontext():
            try:
                return worker(
                    self.values,
                    self.output,
                    device=str(ray.train.torch.get_device()) if self.use_gpu else "cpu",
                    resume=self.resume,
                    allowed=self.allowed,
                    should_stop=_listening(self.desk) if first else lambda: False,
                    on_checkpoint=_report,
                    notice=lambda line: print(scrub(line), file=sys.stderr, flush=True) if first else None,
                )
            except Exception as error:
                lines = scrub(traceback.format_exc())
                print(printable(lines, "\n\t"), file=sys.__stderr__, flush=True)
                code = exit_code_of(error)
                plain = code is ExitCode.MISTAKE or isinstance(error, (NonFinite, NothingLearnt, BadLosses))
                raise RankFailed(
                    scrub(str(error) if plain else f"{type(error).__name__}: {error}"),
                    final=isinstance(error, _FINAL),
                    code=code,
                    collateral=isinstance(error, OtherRankFailed),
                    traceback=lines,
                ) from None


def _report(url: str, step: int) -> None:
    ray.train.report({"step": step, "checkpoint": redact(url)})


def _listening(desk: Any) -> Callable[[], bool]:
    stopping = threading.Event()

    def ask() -> None:
        while not stopping.wait(_STOP_POLL_S):
            with contextlib.suppress(RayError):
                if ray.get(desk.stopping.remote()):
                    stopping.set()
                    print("stopping: this step is finished and saved", file=sys.stderr, flush=True)

    threading.Thread(target=ask, name="stop?", daemon=True).start()
    return stopping.is_set


@contextlib.contextmanager
def _speaking(desk: Any, terminal: bool) -> Iterator[None]:
    with contextlib.redirect_stderr(Wire(desk, sys.stderr, terminal)):
        yield


class Wire(io.TextIOBase):
    """stderr of rank 0, which goes to its log in Ray's folder and to the driver."""

    def __init__(self, desk: Any, log: TextIO, terminal: bool) -> None:
        self._desk, self._log, self._terminal = desk, log, terminal
        self._held = ""
        self._lock = threading.RLock()

    def isatty(self) -> bool:
        """As the driver's: its progress is rewritten there, too."""
        return self._terminal

    def write(self, text: str) -> int:
        """Whole lines are sent at once."""
        with self._lock:
            self._log.write(text)
            self._held += text
            if "\n" in text:
                self.flush()
        return len(text)

    def flush(self) -> None:
        """Send what there is."""
        with self._lock:
            self._log.flush()
            if self._held:
                self._desk.say.remote(scrub(self._held))
                self._held = ""
