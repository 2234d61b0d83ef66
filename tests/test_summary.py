"""The last lines of a test run say how many tests were skipped, and for want of what."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shared_data import NEEDS_DATA
from tests.summary import want_of

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("reason", "want"),
    [
        (f"{NEEDS_DATA} ../shared/data/mot15", "a data set in ../shared/data"),
        ("needs a GPU", "a GPU"),
        ("could not import 'cv2': No module named 'cv2'", "a package or an extra"),
        ('needs pip install -e ".[export]"', "a package or an extra"),
        ("no compiler", "a compiler"),
        ("it rains", "something else"),
    ],
)
def test_a_reason_names_what_is_missing(reason: str, want: str) -> None:
    assert want_of(reason) == want


SOME_TESTS = """
import pytest
from tests.summary import pytest_terminal_summary
from tests.shared_data import needs_data

@needs_data("no_such_set", "another")
def test_data(): raise AssertionError
@pytest.mark.parametrize("number", [1, 2])
@needs_data("no_such_set")
def test_more_data(number): raise AssertionError
def test_package(): pytest.importorskip("no_such_package")
def test_runs(): pass
"""


@pytest.mark.parametrize(
    "parallel", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["one process", "two processes"]
)
def test_a_run_counts_its_skips(tmp_path: Path, parallel: bool) -> None:
    if parallel:
        pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    (tmp_path / "conftest.py").write_text("from tests.summary import pytest_terminal_summary\n")
    (tmp_path / "test_some.py").write_text(SOME_TESTS)
    (tmp_path / "test_file.py").write_text('import pytest\npytest.importorskip("no_such_module")\n')
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(tmp_path), str(tmp_path)]
    command += ["-p", "no:cacheprovider", *(["-n", "2"] if parallel else [])]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    line = "skipped: 3 for want of a data set in ../shared/data, 2 for want of a package or an extra"
    assert line in done.stdout
    assert re.search(rf"^  3 x {NEEDS_DATA} \.\./shared/data/no_such_set$", done.stdout, re.MULTILINE)
    assert "could not import 'no_such_module'" in done.stdout
