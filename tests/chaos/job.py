"""A command that is started again, just the same, whenever it has ended before its work was done: as schedulers do."""

from __future__ import annotations

import re
import signal
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from tests.chaos.processes import descendants, end_all, send
from tests.runs import ROOT

_BUGS = re.compile(
    r"This is a bug in Trackmill"
    # Python's own thread that hands open files to another process prints one where that is killed just then.
    r"|Traceback \(most recent call last\)(?!:\n  File \"[^\"\n]*/multiprocessing/resource_sharer\.py\")"
)
_TAIL_BYTES = 20_000


class Job:
    """One command and its process.

    Args:
        name: for messages and the log.
        command: the words.
        environment: of the process.
        log: what it prints, start after start.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name, self._command, self._environment, self.log = name, list(command), dict(environment), log
        self.starts = 0
        self.ends: Counter[int] = Counter()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it (again)."""
        self.starts += 1
        with open(self.log, "ab") as handle:
            handle.write(f"--- start {self.starts}\n".encode())
            handle.flush()
            self.process = subprocess.Popen(
                self._command, stdout=handle, stderr=handle, env=self._environment, cwd=ROOT, start_new_session=True
            )

    def ended(self) -> int | None:
        """Its exit code, once, after it has ended; None while it runs or was not started."""
        if self.process is None or (code := self.process.poll()) is None:
            return None
        self.process = None
        self.ends[code] += 1
        return code

    def kill(self) -> bool:
        """SIGKILL it alone, not its children; whether it lived."""
        return self.process is not None and send(self.process.pid, signal.SIGKILL)

    def family(self) -> list[psutil.Process]:
        """What descends from it."""
        return descendants(self.process.pid) if self.process is not None else []

    def end(self) -> None:
        """SIGKILL it with all that descends from it."""
        if self.process is not None:
            family = self.family()
            send(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=60)
            end_all(family)
            self.process = None

    def tail(self, lines: int = 15) -> str:
        """The end of what it printed."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").splitlines()[-lines:])

    def bugs(self) -> int:
        """How often it said that something is wrong with the code itself."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return len(_BUGS.findall(text))
