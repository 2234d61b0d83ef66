"""A trainer that is killed takes its loader workers, their server and the resource tracker with it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.loader.examples import make_shards
from tests.runs import ROOT, job_environment

TRAINER = """
import sys, time
from tests.loader.examples import open_loader
from trackmill.pipeline.loader.catalog import read_catalog

if __name__ == "__main__":
    loader = open_loader(read_catalog(sys.argv[1]), 8, workers=2)
    next(loader)
    print("training", flush=True)
    time.sleep(600)
"""


@pytest.mark.timeout(600)
def test_nothing_outlives_a_trainer_that_is_killed(tmp_path: Path) -> None:
    root = make_shards(str(tmp_path / "data")).root
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    environment = job_environment() | {"PYTHONPATH": str(ROOT)}
    trainer = subprocess.Popen(
        [sys.executable, str(script), root], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    )
    assert trainer.stdout is not None
    below: list[psutil.Process] = []
    try:
        assert trainer.stdout.readline() == "training\n"
        below = psutil.Process(trainer.pid).children(recursive=True)
        assert len(below) >= 4, "two workers, the server that they are forked from, the resource tracker"
        trainer.send_signal(signal.SIGKILL)
        trainer.wait(timeout=60)
        _, alive = psutil.wait_procs(below, timeout=60)
        assert not alive
    finally:
        for process in below:
            if process.is_running():
                process.kill()
        trainer.kill()
        trainer.wait()
        trainer.stdout.close()
