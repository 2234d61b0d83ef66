"""`trackmill status` as people and cron use it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.make_dataset import make_dataset
from tests.status.test_look import make_receipts
from trackmill.jobs.status import main


def test_it_needs_neither_ray_nor_torch(tmp_path: Path) -> None:
    make_receipts(str(tmp_path), units=1, items=2, planned=3)
    code = (
        "import sys\n"
        "from trackmill.jobs.main import main\n"
        "code = main(sys.argv[1:])\n"
        "print([name for name in ('ray', 'torch', 'cv2') if name in sys.modules], code)\n"
    )
    words = ["status", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] 0", done.stdout


def test_json_and_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_receipts(str(tmp_path / "part"), units=1, items=2, planned=3)
    assert main([str(tmp_path / "part"), "--json", "--stale-after", "3600"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["state"], said["done"], said["left"], said["last_progress_s"] < 3600) == ("stopped", 1, 2, True)
    time.sleep(1.2)
    assert main([str(tmp_path / "part"), "--stale-after", "1"]) == 1
    assert main([str(tmp_path / "nothing")]) == 2
    make_dataset(str(tmp_path / "whole"))
    assert main([str(tmp_path / "whole"), "--stale-after", "1"]) == 0


def test_watching_ends_when_all_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_receipts(str(tmp_path), units=1, items=2, planned=3)
    waited = []
    really = time.sleep

    def sleep(seconds: float) -> None:
        if threading.current_thread() is not threading.main_thread():
            return really(seconds)  # threads that earlier tests left behind
        waited.append(seconds)
        if len(waited) == 2:
            make_dataset(str(tmp_path))
            (tmp_path / "plan" / "plan-0000.parquet").unlink()

    monkeypatch.setattr(time, "sleep", sleep)
    assert main([str(tmp_path), "--watch", "7", "--json"]) == 0
    states = [json.loads(line)["state"] for line in capsys.readouterr().out.splitlines()]
    assert (states, waited) == (["stopped", "stopped", "done"], [7, 7])
