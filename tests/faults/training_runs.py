"""Training in processes of its own as people start it, for tests that kill some of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.faults.paced_tiny import PACED
from tests.runs import ROOT, TIMEOUT_S, job_environment, wait_for
from tests.training.tiny_runs import TINY


def tiny_toml(folder: Path) -> str:
    """The recipe of `tests.training.tiny_runs` with the task that stands still, as a file; returns its path."""
    path = folder / "tiny.toml"
    lines = [f'task = "{PACED}"']
    for name, section in TINY.items():
        if name != "task":
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items())]
    path.write_text("\n".join(lines))
    return str(path)


def start_training(*arguments: object, module: str = "trackmill.jobs.train", **environment: str) -> Any:
    """Start the job; reports to Ray are polled often, so that short steps need not wait for them."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    defaults = {"OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=job_environment(**(defaults | environment)),
        cwd=ROOT,
    )


def finish(process: subprocess.Popen[str], expect: int = 0) -> str:
    """Wait for the end; returns what was printed."""
    try:
        printed = process.communicate(timeout=TIMEOUT_S)[0]
    finally:
        kill(process.pid)
    assert process.returncode == expect, f"exit code {process.returncode}, expected {expect}:\n{printed}"
    return printed


def standing_still(folder: Path, ranks: int, process: subprocess.Popen[str]) -> list[int]:
    """Wait until all ranks stand still (see `tests.faults.paced_tiny`); returns their process ids."""
    files = [folder / f"rank-{rank}" for rank in range(ranks)]
    wait_for(lambda: all(file.exists() and file.read_text() for file in files), "the ranks to stand still", process)
    return [int(file.read_text()) for file in files]


def kill(pid: int) -> None:
    """SIGKILL, by pid."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_rank(rank: int, folder: Path, process: subprocess.Popen[str]) -> list[int]:
    """Kill one of two ranks that stand still in `folder` and let the others go on; the pids of both."""
    try:
        pids = standing_still(folder, 2, process)
        (folder / "go").touch()
        kill(pids[rank])
    except BaseException:
        kill(process.pid)
        raise
    return pids
