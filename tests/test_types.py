"""The types hold everywhere. A test, so that one process looks at types while the other one tests."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.runs import ROOT


@pytest.mark.timeout(1800)
def test_mypy_finds_nothing() -> None:
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
