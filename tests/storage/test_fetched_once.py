"""Several workers of a machine start at once, and its checkpoint comes over the network once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.storage.file_server import FileServer, serving

PROCESSES = 3
DATA = os.urandom(300_000)
CODE = (
    "import sys; from trackmill.pipeline.storage.fetched import fetch_weights; print('ready', flush=True);"
    "sys.stdin.readline(); print(fetch_weights(sys.argv[1]).sha256)"
)


@pytest.mark.slow  # starts processes; the lock itself is tested in test_fetched.py
def test_one_process_fetches_and_the_others_wait_for_it(tmp_path: Path) -> None:
    environment = {**os.environ, "TRACKMILL_CACHE": str(tmp_path)}
    with serving(FileServer(content=DATA)) as server:
        started = [
            subprocess.Popen(
                [sys.executable, "-c", CODE, server.url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
                cwd=Path(__file__).parents[2],
            )
            for _ in range(PROCESSES)
        ]
        for process in started:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        sums = {process.communicate(timeout=540)[0].strip() for process in started}
    assert all(process.returncode == 0 for process in started)
    assert len(sums) == 1
    assert server.begins == [0], "one download"
    assert server.sent == len(DATA)
