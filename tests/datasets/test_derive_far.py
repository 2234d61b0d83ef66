"""Filtering from and to an object store, and after a process was killed outright."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.datasets.test_derive import files, samples, whole, with_sidecar
from tests.make_dataset import make_dataset
from tests.object_store import object_store
from trackmill.jobs.main import main
from trackmill.pipeline.storage.list_files import list_files

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 300


def test_from_a_store_to_a_store(tmp_path: Path) -> None:
    local = make_dataset(str(tmp_path / "set"))
    with object_store():
        layout = make_dataset("s3://b/set")
        with_sidecar(layout)
        assert main(["filter", layout.root, "--output", "s3://b/new", "--kind", "picture"]) == 0
        assert len(samples("s3://b/new")) == 4
        assert samples("s3://b/new").items() <= samples(local.root).items()
        whole("s3://b/new")
        assert main(["export-data", "s3://b/new", "--output", "s3://b/coco", "--format", "coco"]) == 0
        assert len(list_files("s3://b/coco/train")) == 4


@pytest.mark.timeout(2 * TIMEOUT_S)
def test_a_killed_process_leaves_what_the_next_one_goes_on_with(tmp_path: Path) -> None:
    layout = make_dataset(str(tmp_path / "set"), num_images=40)
    with_sidecar(layout)
    words = ["filter", layout.root, "--unit-frames", "2", "--workers", "2", "--output"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    # It waits at each receipt, so that the kill comes in the middle.
    code = (
        "import sys, time\n"
        "import trackmill.pipeline.datasets.derive as derive\n"
        "from trackmill.jobs.main import main\n"
        "write = derive.write_receipt\n"
        "derive.write_receipt = lambda *values: (write(*values), time.sleep(0.3))\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, *words, str(tmp_path / "killed")], cwd=ROOT)
    receipts = tmp_path / "killed" / "receipts"
    until = time.monotonic() + TIMEOUT_S
    while not (receipts.exists() and len(list(receipts.glob("part-*.parquet"))) >= 3):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(TIMEOUT_S)
    assert len(list(receipts.glob("part-*.parquet"))) < 20
    assert main([*words, str(tmp_path / "killed")]) == 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole"), "no scratch file, no lock, the same bytes"
    whole(tmp_path / "killed")
