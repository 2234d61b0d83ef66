"""SIGTERM to a worker and to the driver, on a real Ray: units are finished or dropped, and the next run goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.make_media import make_pictures
from tests.runs import TIMEOUT_S, mine, miner_pids, receipts_written, start_mining, statuses, tars, wait_for
from trackmill.pipeline.console.exit_codes import ExitCode

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_worker_and_then_the_job_are_told_to_end(tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", count=60, height=360, width=480)
    options = ["--input", tmp_path / "in", "--actors", 1, "--set", "shards.unit_frames=6"]
    options += ["--set", "graph.backend=skimage", "--set", "run.keep_s=0.2"]  # the slower one
    output = tmp_path / "out"
    process = start_mining(*options, "--output", output)
    wait_for(lambda: receipts_written(output) >= 1, "the first unit", process)
    (first,) = miner_pids(process.pid)
    os.kill(first, signal.SIGTERM)
    wait_for(lambda: first not in miner_pids(process.pid), "the worker to end", process)
    before = receipts_written(output)
    wait_for(lambda: receipts_written(output) > before + 1, "its successor at work", process)
    process.send_signal(signal.SIGTERM)
    printed = process.communicate(timeout=TIMEOUT_S)[0]
    assert process.returncode == ExitCode.STOPPED, printed
    assert "asked to stop" in printed and "the next run goes on from here" in printed
    assert "speed of light" in printed
    assert "died" not in printed and "failed" not in printed, "nobody is to blame"
    assert receipts_written(output) < 10, "stopped too late to prove anything"
    assert not list((output / "shards").glob(".tmp*"))
    mine(*options, "--output", output, "--executor", "inline")
    mine(*options, "--output", tmp_path / "whole", "--executor", "inline", "--set", "run.keep_s=0")
    assert statuses(output) == statuses(tmp_path / "whole")
    assert tars(output) == tars(tmp_path / "whole")
    assert not (output / "work").exists() or not any((output / "work").iterdir())
