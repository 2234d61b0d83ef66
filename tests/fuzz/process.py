"""The child that inputs are tried in, from outside: started, watched, ended when it hangs, its death blamed."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from tests.fuzz.child import STACKS
from tests.fuzz.outcomes import Kind, Outcome
from tests.fuzz.target import Files, Target

_TICK_S = 0.2
_WALL_FACTOR = 6
"""A child that waits and uses no processor time is given so much longer."""
_INPUTS = 400
"""A child is renewed after so many inputs, so that what one leaves behind cannot grow without end."""
_ROOT = Path(__file__).resolve().parents[2]


class Child:
    """Tries the inputs of one target, in one process after another.

    Args:
        target: what is tried.
        module: where the child finds it in `TARGETS`.
    """

    def __init__(self, target: Target, module: str) -> None:
        self._target = target
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._tried = 0

    def try_one(self, files: Files, names: Iterable[str] = ()) -> Outcome:
        """What becomes of an input; also when the child dies of it or does not come back.

        Args:
            files: the input.
            names: of files that are not in it any more, which an error may name as well.
        """
        if self._process is None or self._tried >= _INPUTS:
            self.close()
            self._start()
        assert self._process is not None and self._process.stdin is not None
        self._tried += 1
        with contextlib.suppress(BrokenPipeError):
            pickle.dump((files, {*files, *names}), self._process.stdin)
            self._process.stdin.flush()
        return self._wait(self._target.most_cpu_s)

    def close(self) -> None:
        """End the child, and whatever it has started."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._process = None

    def _start(self) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the child lives
        self._tried = 0
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1", "TMPDIR": tempfile.gettempdir()}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.child", self._module, self._target.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=_ROOT,
            env=environment,
            start_new_session=True,
        )
        ready = self._wait(600.0)
        if ready is not None and ready.kind in (Kind.HANG, Kind.DEATH):
            raise RuntimeError(f"the child of {self._target.name} did not start: {ready.place}")

    def _wait(self, most_cpu_s: float) -> Outcome:
        assert self._process is not None and self._process.stdout is not None
        begun, used = time.monotonic(), _cpu_s(self._process.pid)
        while True:
            readable, _, _ = select.select([self._process.stdout], [], [], _TICK_S)
            if readable:
                try:
                    answer: Outcome = pickle.load(self._process.stdout)
                    return answer
                except (EOFError, pickle.UnpicklingError):
                    code = self._process.wait()
                    return self._ended(Kind.DEATH, f"the child died with exit code {code}")
            cpu_s, wall_s = _cpu_s(self._process.pid) - used, time.monotonic() - begun
            if cpu_s > most_cpu_s or wall_s > most_cpu_s * _WALL_FACTOR:
                os.kill(self._process.pid, STACKS)
                time.sleep(0.3)  # until it is written
                outcome = self._ended(Kind.HANG, f"no answer after {cpu_s:.0f} CPU s and {wall_s:.0f} s")
                return dataclasses.replace(outcome, cpu_s=cpu_s)

    def _ended(self, kind: Kind, text: str) -> Outcome:
        assert self._log is not None
        log = self._log
        self._log = None
        self.close()
        with log:
            size = log.seek(0, 2)
            log.seek(max(0, size - 6000))
            return Outcome(kind=kind, text=text, place=log.read().decode("utf-8", "backslashreplace"))


def _cpu_s(pid: int) -> float:
    """Processor time of a process and of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(fields[i]) for i in (11, 12, 13, 14)) / os.sysconf("SC_CLK_TCK")
