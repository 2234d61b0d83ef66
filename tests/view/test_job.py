"""`trackmill view` as a command: the address that it prints, how it ends, mistakes."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.make_dataset import make_dataset
from tests.runs import ROOT, job_environment
from trackmill.jobs import view
from trackmill.pipeline.console.exit_codes import ExitCode

pytest.importorskip("uvicorn", reason='needs pip install -e ".[view]"')
TIMEOUT_S = 300


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_its_address_and_serves_until_it_is_stopped(tmp_path: Path, number: signal.Signals) -> None:
    root = make_dataset(str(tmp_path), num_images=2).root
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "jobs" / "view.py"), root],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=job_environment(),
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.fullmatch(r"open (http://127\.0\.0\.1:\d+/[\w-]{22}/)\n", said)
        assert found, said + process.communicate(timeout=TIMEOUT_S)[1]
        with urllib.request.urlopen(found[1], timeout=TIMEOUT_S) as answer:
            assert b"<title>Trackmill view" in answer.read()
        process.send_signal(number)
        _, errors = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    assert process.returncode == ExitCode.STOPPED
    assert errors.splitlines()[-1] == "interrupted" and "Traceback" not in errors
    assert found[1].split("/")[3] not in errors, "the token stands in no log"


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert view.main([str(tmp_path / "nothing")]) == ExitCode.MISTAKE
    assert "no data set here" in capsys.readouterr().err
    for port in ("65536", "-1", "http", "000000070000", "9" * 5000):
        assert view.main([str(tmp_path), f"--port={port}"]) == ExitCode.MISTAKE
        assert f"{port[:20]!r} is no port: 0 to 65535" in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "trackmill.pipeline.view.serve", raising=False)
    assert view.main([str(tmp_path)]) == ExitCode.MISTAKE
    assert 'pip install -e ".[view]"' in capsys.readouterr().err
