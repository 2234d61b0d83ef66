"""The command, as a person runs it; and the miner's `--sidecar`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.make_dataset import make_dataset
from tests.make_media import make_pictures
from tests.runs import job_environment, rows
from trackmill.jobs.make_sidecar import main
from trackmill.jobs.mine_proposals import main as mine
from trackmill.pipeline.storage.scratch import sweep_scratch

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = '''
import numpy as np
from trackmill.pipeline.sidecars.columns import Column
from trackmill.pipeline.sidecars.producer import Producer


class Sizes(Producer):
    """Bytes of each stored frame."""

    name = "sizes"
    version = 3
    columns = (Column(name="bytes", dtype="int64", unit="bytes", description="Of the JPEG."),)

    def __init__(self, config):
        pass

    def rows(self, sample):
        return {"frame": np.arange(len(sample.jpegs)), "bytes": [len(jpeg) for jpeg in sample.jpegs]}
'''


def test_made_in_two_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_dataset(str(tmp_path / "set")).root
    command = [root, "chains", "--executor", "inline", "--set", "min_length=1"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "2 parts of sidecar chains to make, about 5 samples" in out and "done: 2 parts made now (56 rows" in out
    assert main(command) == 0
    assert "done: nothing was left to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # name, setting and data set: one line that says how to mend it
        (["{root}", "chain"], "no producer is called 'chain'; did you mean 'chains'?"),
        (["{root}", "chains", "--set", "min_lenght=3"], "unknown key 'min_lenght'; did you mean 'min_length'?"),
        (["{root}", "Chains!", "--producer", "chains"], "'Chains!' cannot be the name of a sidecar"),
        (["{root}/shards", "chains"], "no receipts here; sidecars describe the units of a data set that mining wrote"),
        (["{root}/nothing", "chains"], "no data set here"),
        (["{root}", "mine", "--producer", "tests.make_dataset:Layout"], "it is no class derived from"),
        (["{root}", "mine", "--producer", "nowhere_at_all:X"], "there is no module 'nowhere_at_all'"),
        (["{root}"], "NAME"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    root = make_dataset(str(tmp_path / "set")).root
    assert main([word.format(root=root) for word in arguments] + ["--executor", "inline"]) == 2
    out, err = capsys.readouterr()
    assert message in err and err.count("\n") == 1 and out == ""
    assert not Path(root, "sidecars").exists()


def test_damaged_shards_are_named_and_the_others_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = make_dataset(str(tmp_path / "set"))
    shard = Path(layout.shard("part-00000000.tar"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:5000] + b"x" + whole[5001:])
    command = [layout.root, "chains", "--executor", "inline"]
    assert main(command) == 1
    err = capsys.readouterr().err
    assert "part-00000000.parquet: part-00000000.tar: its SHA-256 is not that of its receipt" in err
    assert {path.name for path in Path(layout.sidecar("chains")).iterdir()} == {"sidecar.json", "part-00000001.parquet"}
    shard.write_bytes(whole)
    assert main(command) == 0


def test_a_producer_from_outside_in_a_folder_of_its_own(tmp_path: Path) -> None:
    make_dataset(str(tmp_path / "set"))
    (tmp_path / "frame_sizes.py").write_text(OUTSIDE)
    words = ["set", "sizes", "--producer", "frame_sizes:Sizes", "--executor", "inline"]
    command = [sys.executable, str(ROOT / "jobs" / "make_sidecar.py"), *words]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=240)
    assert result.returncode == 0, result.stderr
    assert "(14 rows about 5 samples" in result.stdout
    assert b"frame_sizes" not in (tmp_path / "set" / "sidecars" / "sizes" / "sidecar.json").read_bytes()


def test_a_sidecar_without_a_single_sample_is_incomplete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_dataset(str(tmp_path / "set")).root
    words = [root, "b", "--producer", "tests.sidecars.producers:Brightness", "--executor", "inline"]
    assert all("-" in row.key for row in rows(tmp_path / "set") if row.status == "ok")
    assert main([*words, "--set", "fail='-'"]) == 3
    assert "nothing was made: every sample is quarantined" in capsys.readouterr().out


@pytest.mark.ray
@pytest.mark.slow  # mining shows the same of the pool they share
def test_on_ray_as_in_this_process(tmp_path: Path) -> None:
    """Two actors; also from a module that lies in the folder where the command was typed."""
    for name in ("ray", "here"):
        make_dataset(str(tmp_path / name))
    (tmp_path / "frame_sizes.py").write_text(OUTSIDE)
    words = ["sizes", "--producer", "frame_sizes:Sizes", "--workers", "2"]
    for name, executor in (("here", "inline"), ("ray", "ray")):
        command = [sys.executable, str(ROOT / "jobs" / "make_sidecar.py"), name, *words, "--executor", executor]
        result = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, timeout=540, env=job_environment()
        )
        assert result.returncode == 0, result.stderr
    ours, theirs = (sorted((tmp_path / name / "sidecars").rglob("*.parquet")) for name in ("here", "ray"))
    assert len(ours) == 2 and [path.read_bytes() for path in ours] == [path.read_bytes() for path in theirs]


@pytest.mark.slow  # workers die and are started again; its rules without a cluster: test_worker.py
@pytest.mark.ray
def test_a_sample_that_kills_workers_is_quarantined_alone(tmp_path: Path) -> None:
    root = make_dataset(str(tmp_path / "set")).root
    words = [root, "dying", "--producer", "tests.sidecars.producers:Dying", "--set", "fail=pic2", "--workers", "1"]
    command = [sys.executable, str(ROOT / "jobs" / "make_sidecar.py"), *words]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=540, env=job_environment())
    assert result.returncode == 0, result.stderr
    assert "WorkerDied: 2 workers died while they had this item in hand" in result.stderr
    assert "1 samples are quarantined in it" in result.stdout
    names = {path.name for path in Path(root, "sidecars", "dying").iterdir()}
    assert names == {"sidecar.json", "part-00000000.parquet", "part-00000001.parquet"}
    again = [*words, "--executor", "inline", "--only-quarantined", "--set", "fail=''"]
    assert main(again) == 0, "mended, in this process"


def test_mining_makes_them_in_the_same_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_pictures(tmp_path / "in", count=3)
    words = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--executor", "inline"]
    words += ["--sidecar", "chains", "--set", "sidecars.chains.min_length=1"]
    assert mine([*words, "--plan-only"]) == 0 and not (tmp_path / "out").exists()
    assert mine(words) == 0
    capsys.readouterr()
    assert main([str(tmp_path / "out"), "chains", "--executor", "inline", "--set", "min_length=1"]) == 0
    assert "nothing was left to do" in capsys.readouterr().out
    assert mine([*words[:-1], "sidecars.chains.min_lenght=1"]) == 2
    assert "did you mean 'min_length'?" in capsys.readouterr().err


def test_scratch_files_of_a_killed_run_are_swept(tmp_path: Path) -> None:
    layout = make_dataset(str(tmp_path / "set"))
    command = [layout.root, "chains", "--executor", "inline"]
    assert main(command) == 0
    script = (
        "import os; from trackmill.pipeline.storage.scratch import scratch_file\n"
        f"scratch_file({layout.sidecar_part('chains', 'part-00000009.parquet')!r}); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    folder = Path(layout.sidecar("chains"))
    assert any(path.name.startswith(".tmp-") for path in folder.iterdir())
    assert main(command) == 0
    assert not any(path.name.startswith(".tmp-") for path in folder.iterdir())
    assert sweep_scratch(str(folder)) == 0
