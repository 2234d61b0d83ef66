"""The mining job from the command line: resume, growth, refusals, forecast, determinism."""

from __future__ import annotations

import io
import json
import shutil
import signal
import tarfile
import tomllib
from pathlib import Path

import pytest
import webdataset

from tests.make_media import (
    make_mot,
    make_pictures,
    make_sa1b_folder,
    make_sa1b_tar,
    make_sav_train,
    make_sav_val,
    make_video,
)
from tests.runs import TIMEOUT_S, mine, receipts_written, rows, start_mining, statuses, tars, wait_for
from trackmill.jobs import mine_proposals

INLINE = ("--executor", "inline")


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every kind of input, all mixed."""
    folder = tmp_path_factory.mktemp("everything")
    make_sa1b_folder(folder / "sa1b", first=1)
    make_sa1b_tar(folder / "tars" / "sa_000000.tar", first=100)
    make_sav_train(folder / "sav")
    make_sav_val(folder / "sav_val")
    make_mot(folder / "mot")
    make_pictures(folder / "pictures")
    (folder / "videos").mkdir()
    make_video(folder / "videos" / "clip.mp4", 30)
    (folder / "notes.txt").write_text("not media")
    return folder


def test_every_source_at_once(everything: Path, tmp_path: Path) -> None:
    printed = mine("--input", everything, "--output", tmp_path, *INLINE)
    found = rows(tmp_path)
    assert {row.status for row in found} == {"ok"}, printed
    assert {row.key.split("-")[0] for row in found} == {"sa1b", "sav", "mot", "images", "videos"}
    assert "notes.txt" in printed, "what is left alone is said"
    assert any(row.negatives for row in found if row.key.startswith(("sa1b", "sav", "mot")))
    assert not any(row.negatives for row in found if row.key.startswith(("images", "videos")))
    for name in ("config.json", "schema.json", "README.md", "manifest/items.parquet", "manifest/shards.parquet"):
        assert (tmp_path / name).stat().st_size > 0
    again = mine("--input", everything, "--output", tmp_path, *INLINE)
    assert "nothing was left to do" in again


def test_others_can_read_the_shards(everything: Path, tmp_path: Path) -> None:
    """Python's tarfile and WebDataset see the samples that the receipts promise."""
    mine("--input", everything / "sa1b", everything / "videos", "--output", tmp_path, *INLINE)
    shards = sorted(str(path) for path in (tmp_path / "shards").glob("*.tar"))
    promised = {row.key: row for row in rows(tmp_path)}
    samples = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False))
    assert {sample["__key__"] for sample in samples} == set(promised)
    for sample in samples:
        record = json.loads(sample["json"])
        row = promised[sample["__key__"]]
        assert sum(name.endswith("jpg") for name in sample) == len(record["frames"]) == row.frames
        data = (tmp_path / "shards" / row.shard).read_bytes()[row.offset : row.offset + row.size]
        with tarfile.open(fileobj=io.BytesIO(data)) as piece:
            assert {member.name.split(".")[0] for member in piece} == {row.key}


@pytest.mark.ray
@pytest.mark.parametrize("actors", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_bytes_do_not_depend_on_who_did_the_work(everything: Path, tmp_path: Path, actors: int) -> None:
    options = ["--input", everything, "--set", "shards.unit_frames=4"]
    mine(*options, "--output", tmp_path / "inline", *INLINE)
    mine(*options, "--output", tmp_path / "ray", "--actors", actors, "--set", "run.recycle_after=3")
    assert tars(tmp_path / "ray") == tars(tmp_path / "inline")
    assert statuses(tmp_path / "ray") == statuses(tmp_path / "inline")


def test_shards_are_bounded(tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", count=6)
    limits = ["--set", "shards.max_samples=2", "--set", "shards.unit_frames=8"]
    mine("--input", tmp_path / "in", "--output", tmp_path / "out", *limits, *INLINE)
    names = sorted({row.shard for row in rows(tmp_path / "out")})
    assert names == ["part-00000000-01.tar", "part-00000000-02.tar", "part-00000000.tar"]
    limits = ["--set", "shards.max_bytes=30000", "--set", "shards.unit_frames=8"]
    mine("--input", tmp_path / "in", "--output", tmp_path / "bytes", *limits, *INLINE)
    sizes = [path.stat().st_size for path in (tmp_path / "bytes" / "shards").iterdir()]
    assert len(sizes) > 1
    assert max(sizes) <= 30000


def test_new_files_join_and_nothing_is_done_twice(tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    make_pictures(folder, count=4)
    options = ["--input", folder, "--output", output, *INLINE]
    mine(*options, "--limit", 2)
    first = tars(output)
    assert len(statuses(output)) == 2
    mine(*options)
    assert len(statuses(output)) == 4
    make_pictures(folder, count=6)
    mine(*options)
    assert set(statuses(output).values()) == {"ok"}
    assert len(statuses(output)) == 6
    assert first.items() <= tars(output).items()
    assert "less than the 6 items already planned" in mine(*options, "--limit", 3, expect=2)


def test_a_changed_setting_is_refused(tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", count=2)
    options = ["--input", tmp_path / "in", "--output", tmp_path / "out", *INLINE]
    mine(*options)
    before = tars(tmp_path / "out")
    printed = mine(*options, "--set", "read.longest_side=32", expect=2)
    assert "read.longest_side: 1024 -> 32" in printed
    assert tars(tmp_path / "out") == before
    mine(*options, "--set", "run.progress_s=1")


def test_settings_may_change_until_something_is_finished(tmp_path: Path) -> None:
    """A first try that failed before its first unit does not tie the output to its settings."""
    make_video(_made(tmp_path / "in") / "clip.mp4", 48, 24)
    output = tmp_path / "out"
    options = ["--input", tmp_path / "in", "--output", output, *INLINE]
    mine(*options, "--set", "read.frames_per_clip=4")
    assert len(statuses(output)) == 3
    shutil.rmtree(output / "receipts")
    shutil.rmtree(output / "manifest")
    mine(*options, "--set", "read.frames_per_clip=6")
    assert len(statuses(output)) == 2, "neither the old plan nor its shards are left"
    assert {row.shard for row in rows(output)} == set(tars(output))
    mine(*options, "--set", "read.frames_per_clip=4", expect=2)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_stopping_politely(tmp_path: Path) -> None:
    """SIGTERM, as from a scheduler: a clear last line, nothing half done, and the same command goes on."""
    make_pictures(tmp_path / "in", count=40, height=240, width=320)
    output = tmp_path / "out"
    options = ["--input", tmp_path / "in", "--output", output, "--set", "shards.unit_frames=1", *INLINE]
    process = start_mining(*options)
    wait_for(lambda: receipts_written(output) >= 1, "the first unit", process)
    process.send_signal(signal.SIGTERM)
    printed = process.communicate(timeout=TIMEOUT_S)[0]
    assert process.returncode == 130, printed
    assert "the same command goes on" in printed
    assert "Traceback" not in printed
    assert not list((output / "shards").glob(".*"))
    assert receipts_written(output) < 40
    mine(*options)
    assert list(statuses(output).values()) == ["ok"] * 40


def test_plan_only_writes_nothing(everything: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    printed = mine("--input", everything, "--output", output, "--plan-only", "--usd-per-cpu-hour", 2, *INLINE)
    for word in ("GPU-hours", "shards", "USD", "units", "s a frame"):
        assert word in printed
    assert not output.exists()


def test_settings_from_a_file(tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", count=1, height=96, width=128)
    config = tmp_path / "run.toml"
    config.write_text('[run]\nexecutor = "inline"\n[read]\nlongest_side = 64\n')
    mine("--input", tmp_path / "in", "--output", tmp_path / "out", "--config", config)
    stored = json.loads((tmp_path / "out" / "config.json").read_text())
    assert stored["parts"]["read"]["longest_side"] == 64
    config.write_text("[read]\nlongest_sied = 64\n")
    assert "did you mean 'read.longest_side'?" in mine("--input", "x", "--output", "y", "--config", config, expect=2)


def test_printed_settings_tell_those_of_the_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert mine_proposals.main(["--print-config", "--source", "crowdhuman"]) == 0
    printed = tomllib.loads(capsys.readouterr().out)
    assert printed["source_settings"] == {"box": "full"}
    assert mine_proposals.main(["--print-config"]) == 0
    assert {"box", "classes", "fps"} <= tomllib.loads(capsys.readouterr().out)["source_settings"].keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "pipe:touch pwned"], "shell command"),
        (["--input", "no/such/folder"], "no/such/folder"),
        (["--input", "tests/jobs/__init__.py"], "nothing to mine|No source|no source|not understood|nothing"),
        (["--input", "docs", "--set", "read.longest_sied=1"], "did you mean 'read.longest_side'"),
        (["--input", "docs", "--max-quarantined", "many"], "--max-quarantined"),
        (["--input", "x.jpg", "--proposer", "annotations", "--source", "images"], "needs annotations"),
        (["--only-quarantined"], "nothing was mined"),
        (["--only-quarantined", "--plan-only"], "--plan-only does not go with --only-quarantined"),
        (["--input", "x.jpg", "--proposer", "sam"], "weights"),
    ],
)
def test_mistakes_are_one_clear_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    printed = mine(*arguments, "--output", tmp_path / "out", *INLINE, expect=2)
    assert any(word in printed for word in message.split("|")), printed
    assert "Traceback" not in printed
    assert not Path("pwned").exists()
