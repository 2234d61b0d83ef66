"""A package that is not installed is answered by the line that installs it; a bug stays a bug."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from trackmill.pipeline.console.missing import _OF_EXTRA, with_advice
from trackmill.schemas import install as installing
from trackmill.schemas.errors import MissingPackage

EXTRAS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be found."""
    monkeypatch.setattr("trackmill.pipeline.console.missing.find_spec", lambda name: None)


def test_a_package_of_an_extra_is_named_with_it(no_package: None) -> None:
    for name, extra, line in (
        ("torch", "masa", '".[masa]"'),
        ("torch.nn", "train", '".[train]"'),
        ("cv2", "masa", '".[train]"'),
        ("open_clip.tokenizer", "", '".[detic]"'),
    ):
        told = with_advice(ModuleNotFoundError(f"No module named {name!r}", name=name), extra)
        assert isinstance(told, MissingPackage) and line in str(told) and name.partition(".")[0] in str(told)


def test_what_no_extra_brings_is_no_advice(no_package: None) -> None:
    for error in (
        ModuleNotFoundError("No module named 'mine'", name="mine"),
        ModuleNotFoundError("No module named 'trackmill.x'", name="trackmill.x"),
        ModuleNotFoundError("No module named 'torch'", name="torch"),
        MissingPackage("said already", name="torch"),
        ValueError("torch"),
    ):
        assert with_advice(error, "") is error


def test_a_part_of_a_package_that_is_there_is_a_bug() -> None:
    error = ModuleNotFoundError("No module named 'numpy.nothing'", name="numpy.nothing")
    assert with_advice(error, "masa") is error


def test_extras_that_are_named_exist() -> None:
    assert set(_OF_EXTRA.values()) <= set(EXTRAS)


@pytest.mark.parametrize(
    ("job", "words", "line"),
    [
        ("train", ["--recipe", "masa_lite0", "--data", "x", "--output", "y", "--dry-run"], '".[train]"'),
        ("convert", ["--weights", "x.pth", "--output", "y"], '".[masa]"'),
        ("export", ["--weights", "x.pth", "--output", "y"], '".[train]"'),
        ("track", ["--video", "x", "--output", "y", "--detections", "z.txt", "--model", "masa_r50"], '".[masa]"'),
    ],
)
def test_a_job_without_torch_says_so(job: str, words: list[str], line: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules['torch'] = None; from trackmill.jobs.{job} import main; sys.exit(main({words!r}))"
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "1.jpg").write_bytes(b"")
    (tmp_path / "x.pth").write_bytes(b"")
    (tmp_path / "z.txt").write_text("1,-1,1,1,5,5,0.9\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2 and f"pip install -e {line} -c constraints.txt" in done.stderr, done.stderr


def test_outside_of_a_checkout_the_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert installing.install("s3", "view") == 'pip install -e ".[s3,view]" -c constraints.txt'
    assert installing.install_package("ninja") == "pip install ninja -c constraints.txt"
    monkeypatch.setattr(installing, "_ROOT", tmp_path)
    assert installing.install("s3", "view") == 'pip install "trackmill[s3,view]"'
    assert installing.install_package("ninja") == "pip install ninja"
