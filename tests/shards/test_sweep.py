"""Scratch files of the dead go, in every folder of a data set; those of the living and of other machines stay."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.make_media import make_pictures
from tests.runs import mine
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.sweep import sweep_output
from trackmill.pipeline.storage.processes import machine, started_at
from trackmill.pipeline.storage.scratch import scratch_path


def left_in(folders: list[Path], pid: int) -> list[Path]:
    files = [folder / f".tmp-{machine()}~{pid}~{started_at(pid) or 'gone'}~00000000-x.part" for folder in folders]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return files


@pytest.fixture
def dead() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_every_folder_is_swept_and_the_living_keep_theirs(tmp_path: Path, dead: int) -> None:
    layout = Layout(str(tmp_path))
    files = [layout.config, layout.manifest, layout.receipt("r"), layout.shard("s"), layout.sidecar_part("chains", "p")]
    folders = {Path(file).parent for file in files} | {Path(layout.plan), Path(layout.listing)}
    gone = left_in([*folders, Path(layout.tar_indexes)], dead)
    stays = scratch_path(layout.manifest)
    stays.touch()
    elsewhere = Path(layout.plan) / ".tmp-another-machine~1~0~00000000-x.part"
    elsewhere.touch()
    sweep_output(layout)
    assert not [file for file in gone if file.exists()]
    assert stays.exists() and elsewhere.exists()


@pytest.mark.parametrize("options", [(), ("--part", "1/1")], ids=["own", "shared"])
def test_a_run_takes_away_what_was_left(tmp_path: Path, dead: int, options: tuple[str, ...]) -> None:
    make_pictures(tmp_path / "in", count=2, height=48, width=64)
    command = ["--input", tmp_path / "in", "--output", tmp_path / "out", "--executor", "inline", *options]
    mine(*command)
    whole = sorted(path.relative_to(tmp_path) for path in (tmp_path / "out").rglob("*"))
    left_in([tmp_path / "out", *(path for path in (tmp_path / "out").iterdir() if path.is_dir())], dead)
    mine(*command)
    assert sorted(path.relative_to(tmp_path) for path in (tmp_path / "out").rglob("*")) == whole
