"""The commands of the first page, the quickstart and the four walks, typed as they stand there, in their order."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tests.documents.blocks import ROOT, SHELL, Command, blocks, commands
from tests.make_media import make_mot, make_pictures, make_video
from tests.runs import job_environment
from tests.s3_server import s3_server

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(3600)]

WALKS = sorted(f"docs/people/{path.name}" for path in (ROOT / "docs" / "people").glob("*.md"))
PAGES = ["README.md", "docs/quickstart.md", *WALKS]
SHORTER = {
    "train": ["--max-steps", "2", "--set", "data.batch_size=2", "--set", "data.workers=0"],
    "mine": ["--executor", "inline"],
}
"""Options that make a command short; nothing else of it is changed."""
NOT_HERE = (".pth", "scaletrack_s", "MOT15/train")
"""Weights and videos that a clone does not have, and a GPU's work."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where somebody types: with photos, videos, a clip, detections and ground truth, and a store with a bucket."""
    here = tmp_path_factory.mktemp("walk")
    make_pictures(here / "photos", count=4, height=240, width=320)
    make_pictures(here / "tiles", count=2)
    (here / "videos").mkdir()
    make_video(here / "videos" / "one.mp4", 24, size=(240, 320))
    make_video(here / "clip.mp4", 12, size=(240, 320))
    rows = [f"{frame},-1,{20 + frame},30,40,80,0.9" for frame in range(1, 13)]
    (here / "det.txt").write_text("\n".join(rows) + "\n")
    make_mot(here / "MOT17" / "train", "MOT17-02-FRCNN", num_frames=12, size=(240, 320))
    tracks = "\n".join(f"{frame},1,20,30,40,80,1,-1,-1,-1" for frame in range(1, 13))
    for name in ("out/mot17/MOT17-02-FRCNN.txt", "their/mot17/MOT17-02-FRCNN.txt", "gt/clip.txt"):
        (here / name).parent.mkdir(parents=True)
        (here / name).write_text(tracks)
    own = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "people" / "research.md").read_text(), re.DOTALL)[0]
    (here / "mine.toml").write_text(own)
    with s3_server() as (host, port), pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", "test")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        store = fsspec.filesystem("s3")
        store.mkdir("bucket")
        for name in ("raw", "sa1b", "more"):
            make_pictures(here / name, count=2)
            store.put(str(here / name), f"bucket/{name}", recursive=True)
        yield here


def shown(page: str) -> list[Command]:
    """The commands of a page that can be typed here."""
    found = [command for block in blocks(*SHELL) if block.document == page for command in commands(block)]
    here = [each for each in found if each.whole and not any(word in " ".join(each.words) for word in NOT_HERE)]
    return [each for each in here if each.name != "view"]  # it serves until it is stopped


def test_enough_is_typed() -> None:
    assert sum(len(shown(page)) for page in PAGES) >= 24


@pytest.mark.parametrize("page", PAGES)
def test_a_page(page: str, folder: Path) -> None:
    environment = job_environment(**{name: value for name, value in os.environ.items() if name.startswith("AWS_")})
    if not (folder / "out" / "mined").exists():  # what a page takes as given
        type_it(folder, environment, "mine", ["--input", "photos/", "videos/", "--output", "out/mined"])
    if not fsspec.filesystem("s3").exists("bucket/mined/config.json"):
        type_it(folder, environment, "mine", ["--input", "s3://bucket/raw", "--output", "s3://bucket/mined"])
    for command in shown(page):
        type_it(folder, environment, command.name, list(command.words))


def type_it(folder: Path, environment: dict[str, str], name: str, words: list[str]) -> None:
    """Type one command; where a shell would, globs are left to the program."""
    line = [sys.executable, "-m", "trackmill.jobs.main", name, *words, *SHORTER.get(name, [])]
    if name == "mine" and "--plan-only" in words:
        line = line[: -len(SHORTER["mine"])]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=1200)
    wanted = {0, 1} if name == "doctor" else {0}  # of this machine doctor may find that something is missing
    said = done.stdout[-2000:] + done.stderr[-3000:]
    assert done.returncode in wanted, f"trackmill {name} {' '.join(words)}\n{said}"


def test_the_two_commands_of_the_first_page_in_a_clean_clone(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    assert "\nmake mine " in text and "\nmake test " in text
    subprocess.run(["git", "clone", "--quiet", str(ROOT), "clone"], cwd=tmp_path, check=True)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        ["make", "mine"], cwd=tmp_path / "clone", env=environment, capture_output=True, text=True, timeout=2400
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (tmp_path / "clone" / "out" / "mine" / "contact_sheet.html").exists()
    dry = subprocess.run(
        ["make", "--dry-run", "test"], cwd=tmp_path / "clone", capture_output=True, text=True, timeout=60
    )
    assert "pytest" in dry.stdout and "ruff" in dry.stdout  # mypy is a test
    shutil.rmtree(tmp_path / "clone")
