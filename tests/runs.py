"""Running the mining job as people do, and comparing what two runs left behind."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.receipts import read_receipts
from trackmill.schemas.receipt import ReceiptRow

ROOT = Path(__file__).resolve().parent.parent
# Generous: a loaded two-core machine needs minutes to start Ray.
TIMEOUT_S = 540


def job_environment(**extra: str) -> dict[str, str]:
    """The environment of a job under test: a Ray of its own, not starved by other processes."""
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "disabled",
        "RAY_worker_niceness": "0",
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_raylet_start_wait_time_s": "180",
        "PYTHONUNBUFFERED": "1",
        **extra,
    }
    if "RAY_ADDRESS" not in extra:
        environment.pop("RAY_ADDRESS", None)
    return environment


def start_mining(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Start `jobs/mine_proposals.py` in a process of its own."""
    command = [sys.executable, str(ROOT / "jobs" / "mine_proposals.py"), *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=job_environment(**environment),
        cwd=ROOT,
    )


def mine(*arguments: object, expect: int = 0, **environment: str) -> str:
    """Run the job to its end; returns what it printed."""
    process = start_mining(*arguments, **environment)
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == expect, f"exit code {process.returncode}, expected {expect}:\n{output}"
    return output


def tars(output: Path) -> dict[str, str]:
    """SHA-256 of every shard, by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((output / "shards").glob("*"))}


def rows(output: Path | str) -> list[ReceiptRow]:
    """All receipt rows of a data set."""
    return [row for receipt in read_receipts(Layout(str(output))) for row in receipt.rows]


def statuses(output: Path | str) -> dict[str, str]:
    """Status by source id; fails when an item occurs twice."""
    found: dict[str, str] = {}
    for row in rows(output):
        assert row.source_id not in found, f"{row.source_id} has two rows"
        found[row.source_id] = row.status
    return found


def wait_for(condition: Callable[[], object], what: str, process: subprocess.Popen[Any] | None = None) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if process is not None and process.poll() is not None:
            raise AssertionError(f"the process ended before {what}:\n{process.communicate()[0]}")
        assert time.monotonic() < deadline, f"waited {TIMEOUT_S} s for {what}"
        time.sleep(0.05)


def receipts_written(output: Path) -> int:
    """Number of units that are complete."""
    return len(list((output / "receipts").glob("part-*.parquet")))


def miner_pids(parent: int) -> list[int]:
    """Processes of the actors below a driver (or below a raylet)."""
    found = []
    for process in psutil.Process(parent).children(recursive=True):
        try:
            if "ray::MinerActor" in " ".join(process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found
