"""A disk that is full while a shard is written: the file is named, nothing half written stays, and the run goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.make_media import make_jpeg
from tests.runs import ROOT, TIMEOUT_S, mine, statuses

_LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
from trackmill.jobs.mine_proposals import main
sys.exit(main(sys.argv[2:]))
"""
"""Files of this process cannot grow past a limit; the kernel says so in the same way as of a full disk."""


def test_mining(tmp_path: Path) -> None:
    pictures = [make_jpeg(tmp_path / "in" / f"{number}.jpg", 200, 300, seed=number) for number in range(3)]
    output = tmp_path / "out"
    words = ["--input", str(tmp_path / "in"), "--output", str(output), "--executor", "inline"]
    limit = max(path.stat().st_size for path in pictures) * 2
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(limit), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    assert f"{output}/shards/" in done.stderr and "file too large" in done.stderr.lower()
    assert [path.name for path in (output / "shards").iterdir()] == []
    mine(*words)
    assert len(statuses(output)) == 3
