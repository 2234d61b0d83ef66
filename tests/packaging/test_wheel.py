"""The wheel: what is in it, and that it works in an empty folder of an environment that has never seen the checkout."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import trackmill
from tests.make_dataset import make_dataset
from tests.make_media import make_pictures
from trackmill.jobs.main import COMMANDS

ROOT = Path(__file__).parents[2]
KINDS = (".py", ".toml", ".j2", ".js", ".html", ".css", ".svg")
PACKAGES = ("jobs", "models", "pipeline", "schemas")
TIMEOUT_S = 500


def run(*command: object, cwd: Path, expect: int = 0) -> str:
    """Run a program that knows nothing of this checkout; returns what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, env=environment, timeout=TIMEOUT_S
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since setuptools leaves its work beside what it builds; nothing is fetched."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in ("trackmill", *PACKAGES):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index"]
    run(*command, "--wheel-dir", folder, source, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scripts of an environment with the wheel in it. Its dependencies are this environment's, by their folder only."""
    folder = tmp_path_factory.mktemp("bare")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"]
    run(*install, "--disable-pip-version-check", wheel, cwd=folder)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    # Files such as the one that leads an editable installation to a checkout are not read in a folder named like this.
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python.parent


def test_it_holds_all_that_is_needed_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = email.message_from_bytes(
            archive.read(next(name for name in names if name.endswith(".dist-info/METADATA")))
        )
        scripts = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    ours = {"trackmill/__init__.py", "trackmill/__main__.py", "trackmill/py.typed"}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*"):
            if path.suffix in KINDS and "__pycache__" not in path.parts:
                ours.add(f"trackmill/{path.relative_to(ROOT)}")
    assert {name for name in names if ".dist-info/" not in name} == ours
    assert "trackmill/jobs/recipes/masa_lite0.toml" in ours
    assert metadata["Name"] == "trackmill" and metadata["Version"] == trackmill.__version__
    assert metadata["License-Expression"] == "Apache-2.0" and metadata["Summary"]
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert re.search(r"trackmill *= *trackmill\.jobs\.main:script", scripts)


def test_its_commands_work_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    script = installed / "trackmill"
    assert run(script, "--version", cwd=tmp_path) == f"trackmill {trackmill.__version__}\n"
    where = run(installed / "python", "-c", "import trackmill.models; print(trackmill.models.__file__)", cwd=tmp_path)
    assert where.startswith(str(installed.parent)), "the installed package and not the checkout"
    for name in COMMANDS:
        assert run(script, name, "--help", cwd=tmp_path).startswith(f"usage: trackmill {name} ")
    make_pictures(tmp_path / "in", count=2)
    plan = ["mine", "--input", "in", "--output", "out", "--plan-only", "--executor", "inline"]
    assert "2 items, 2 frames" in run(script, *plan, cwd=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    assert "did you mean 'masa_lite0'" in run(
        script, "train", "--recipe", "masa_lit0", "--output", "o", cwd=tmp_path, expect=2
    )


@pytest.mark.slow  # its commands are tested from it, too
def test_a_recipe_is_found_inside_it(installed: Path, tmp_path: Path) -> None:
    for package in ("torch", "albumentations"):
        pytest.importorskip(package)
    make_dataset(str(tmp_path / "data"), num_images=5)
    dry = ["train", "--recipe", "masa_lite0", "--data", "data", "--output", "run", "--device", "cpu", "--dry-run"]
    for setting in (
        "model.weights=''",
        "data.batch_size=2",
        "data.workers=0",
        "views.size=64",
        f"data.cache={tmp_path}/cache",
    ):
        dry += ["--set", setting]
    printed = run(installed / "trackmill", *dry, cwd=tmp_path)
    assert "6 samples in" in printed and "a step takes" in printed
    assert not (tmp_path / "run").exists()
