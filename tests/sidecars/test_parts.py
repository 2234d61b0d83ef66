"""Sidecars in parts: several processes, without Ray, make what one makes; who dies is followed by the others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.make_dataset import make_dataset
from tests.runs import ROOT, TIMEOUT_S, job_environment, wait_for
from trackmill.jobs import make_sidecar, mine_chains, mine_negatives
from trackmill.pipeline.sidecars.about import SidecarError
from trackmill.pipeline.sidecars.joining import JOB, join_sidecar
from trackmill.pipeline.sidecars.requests import request_sidecar
from trackmill.pipeline.sidecars.run import make_parts, sidecar_claims
from trackmill.pipeline.sidecars.settings import SidecarRunSettings
from trackmill.pipeline.sidecars.sharing import SharedMaking
from trackmill.pipeline.storage.claim_files import FOLDER
from trackmill.pipeline.storage.claims import Claims
from trackmill.pipeline.workers.parts import Part

PRODUCER = "tests.sidecars.producers:Brightness"
INLINE = SidecarRunSettings(executor="inline")
_WITHOUT_RAY = """
import importlib, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "ray":
            raise ModuleNotFoundError("there is no Ray here")
sys.meta_path.insert(0, Refuse())
code = importlib.import_module("trackmill.jobs." + sys.argv[1]).main(sys.argv[2:])
assert "ray" not in sys.modules
sys.exit(code)
"""


def files(root: str | Path, name: str = "b") -> dict[str, bytes]:
    """Everything in the folder of a sidecar, hidden files too."""
    folder = Path(root, "sidecars", name)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def start(job: str, *words: object) -> subprocess.Popen[str]:
    """A job in a process of its own, on a machine that has no Ray."""
    command = [sys.executable, "-c", _WITHOUT_RAY, job, *map(str, words)]
    environment = job_environment(PYTHONPATH=str(ROOT))
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=ROOT
    )


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """What one process makes."""
    root = make_dataset(str(tmp_path / "one")).root
    assert make_sidecar.main([root, "b", "--producer", PRODUCER, "--executor", "inline"]) == 0
    return files(root)


def test_one_part_after_the_other(whole: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_dataset(str(tmp_path / "set")).root
    words = [root, "b", "--producer", PRODUCER]
    assert make_sidecar.main([*words, "--part", "1/2", "--own-share-only"]) == 0
    out = capsys.readouterr().out
    assert "done by part 1/2: 1 unit, 4 samples" in out
    assert "1 unit is left: 0 in work elsewhere, 1 of other parts, which nobody has begun" in out
    assert files(root).keys() == {"sidecar.json", "part-00000000.parquet"}
    assert make_sidecar.main([*words, "--part", "2/2"]) == 0
    assert "done: 1 parts made now" in capsys.readouterr().out
    assert files(root) == whole


def test_a_part_helps_and_sums_up_the_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_dataset(str(tmp_path / "set")).root
    words = [root, "b", "--producer", PRODUCER, "--set", "fail=pic2"]
    assert make_sidecar.main([*words, "--part", "1/2", "--own-share-only"]) == 0
    capsys.readouterr()
    # Nothing is quarantined in its own share, and one sample in the other.
    assert make_sidecar.main([*words, "--part", "2/2", "--max-quarantined", "0"]) == 3
    out = capsys.readouterr().out
    assert "1 samples are quarantined in it; run again with --only-quarantined" in out
    mended = [*words[:-1], "fail=''", "--only-quarantined", "--part", "1/1"]
    assert make_sidecar.main(mended) == 0
    assert "done: 1 parts made now" in capsys.readouterr().out


def test_two_at_once_without_ray(whole: dict[str, bytes], tmp_path: Path) -> None:
    root = make_dataset(str(tmp_path / "set")).root
    words = [root, "b", "--producer", PRODUCER]
    both = [start("make_sidecar", *words, "--part", f"{index}/2") for index in (1, 2)]
    texts = [process.communicate(timeout=TIMEOUT_S)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    assert sum("2 in all" in text for text in texts) >= 1, texts
    assert files(root) == whole, "and neither claims nor a lock are left"


@pytest.mark.parametrize(
    ("job", "words", "name"),
    [
        ("make_sidecar", ["{root}", "chains"], "chains"),
        ("mine_negatives", ["--data", "{root}", "--detector", "proposals"], "negatives"),
        ("mine_chains", ["--data", "{root}", "--boxes", "proposals", "--native", "never", "--cuts", "none"], "chains"),
    ],
)
def test_all_three_jobs_do_a_part_without_ray(tmp_path: Path, job: str, words: list[str], name: str) -> None:
    root = make_dataset(str(tmp_path / "set")).root
    command = [word.format(root=root) for word in words]
    process = start(job, *command, "--part", "2/2", "--own-share-only", "--wait")
    text = process.communicate(timeout=TIMEOUT_S)[0]
    assert process.returncode == 0 and "done by part 2/2: 1 unit, 1 sample" in text, text
    assert "part-00000001.parquet" in files(root, name) and "part-00000000.parquet" not in files(root, name)
    assert FOLDER not in os.listdir(Path(root, "sidecars", name))


def test_what_the_dead_had_in_hand_is_made_by_others(tmp_path: Path) -> None:
    words = ["b", "--producer", "tests.sidecars.producers:Dying", "--set"]
    one, root = (make_dataset(str(tmp_path / name)).root for name in ("one", "set"))
    assert make_sidecar.main([one, *words, "fail=''", "--executor", "inline"]) == 0
    dead = start("make_sidecar", root, *words, "fail=pic2", "--part", "1/2")
    text = dead.communicate(timeout=TIMEOUT_S)[0]
    assert dead.returncode == 3 and "part-00000000.json" in os.listdir(Path(root, "sidecars", "b", FOLDER)), text
    assert make_sidecar.main([root, *words, "fail=''", "--part", "2/2"]) == 0
    made, wanted = files(root), files(one)
    assert made.keys() == wanted.keys()
    # sidecar.json also says what whoever began it was told, which here was to die.
    assert all(made[name] == wanted[name] for name in wanted if name != "sidecar.json")


def test_what_lives_in_other_hands_is_left_to_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_dataset(str(tmp_path / "set")).root
    words = [root, "b", "--producer", PRODUCER, "--part", "2/2"]
    other = Claims(str(Path(root, "sidecars", "b")), JOB)
    other.join()
    assert other.claim(["part-00000000"]) == ["part-00000000"]
    assert make_sidecar.main(words) == 0
    out = capsys.readouterr().out
    assert "1 other process is making this sidecar" in out
    assert "1 unit is left: 1 in work elsewhere; who does the last one sums up" in out
    assert "part-00000000.parquet" not in files(root)
    other.close()
    assert make_sidecar.main(words) == 0
    assert files(root).keys() == {"sidecar.json", "part-00000000.parquet", "part-00000001.parquet"}


def test_a_retry_is_made_once_by_all(tmp_path: Path) -> None:
    """What another process has made again meanwhile is not made a third time."""
    root = make_dataset(str(tmp_path / "set")).root
    assert make_sidecar.main([root, "b", "--producer", PRODUCER, "--executor", "inline", "--set", "fail='-'"]) == 3
    request = request_sidecar("b", PRODUCER, {})
    both = [sidecar_claims(root, "b", INLINE, Part(index, 2)) for index in (1, 2)]
    made = [join_sidecar(claims, root, request, INLINE, only_quarantined=True) for claims in both]
    assert [len(making.todo) for making in made] == [2, 2]
    first, second = (
        SharedMaking(making, claims, claims_part)
        for making, claims, claims_part in zip(made, both, (Part(1, 2), Part(2, 2)))
    )
    assert len(make_parts(made[0], shared=first).made) == 2
    assert make_parts(made[1], shared=second).made == []
    for claims in both:
        claims.close()
    assert not [name for name in files(root) if name.startswith(".")]


@pytest.mark.parametrize("again", [False, True])
def test_what_was_made_a_moment_before_its_claim_is_left(tmp_path: Path, again: bool) -> None:
    root = make_dataset(str(tmp_path / "set")).root
    if again:
        assert make_sidecar.main([root, "b", "--producer", PRODUCER, "--executor", "inline", "--set", "fail='-'"]) == 3
    both = [sidecar_claims(root, "b", INLINE) for _ in range(2)]
    request = request_sidecar("b", PRODUCER, {})
    one, two = (join_sidecar(claims, root, request, INLINE, only_quarantined=again) for claims in both)
    tasks = SharedMaking(one, both[0]).tasks(may_wait=False)
    assert next(tasks).title == "part-00000000.parquet"
    made = make_parts(two, shared=SharedMaking(two, both[1])).made
    assert [result.file_name for result in made] == ["part-00000001.parquet"]
    assert next(tasks, None) is None
    for claims in both:
        claims.close()


def test_a_part_that_cannot_be_made_is_tried_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = make_dataset(str(tmp_path / "set"))
    shard = Path(layout.shard("part-00000000.tar"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:5000] + b"x" + whole[5001:])
    words = [layout.root, "b", "--producer", PRODUCER, "--part", "2/2"]
    assert make_sidecar.main(words) == 1
    assert capsys.readouterr().err.count("its SHA-256 is not that of its receipt") == 1
    assert files(layout.root).keys() == {"sidecar.json", "part-00000001.parquet"}
    shard.write_bytes(whole)
    assert make_sidecar.main(words) == 0


def test_other_settings_are_refused_while_others_are_at_work(tmp_path: Path) -> None:
    root = make_dataset(str(tmp_path / "set")).root
    one, two = (sidecar_claims(root, "b", INLINE) for _ in range(2))
    join_sidecar(one, root, request_sidecar("b", PRODUCER, {}), INLINE)
    other = request_sidecar("b", PRODUCER, {"level": 50})
    with pytest.raises(SidecarError, match="others are at work on it: job sidecar"):
        join_sidecar(two, root, other, INLINE)
    one.close()
    assert join_sidecar(two, root, other, INLINE).parts == 2, "nothing was made, so it may begin anew"
    two.close()


def test_a_finished_sidecar_is_only_looked_at(whole: dict[str, bytes], tmp_path: Path) -> None:
    root = str(tmp_path / "one")
    claims = sidecar_claims(root, "b", INLINE)
    join_sidecar(claims, root, request_sidecar("b", PRODUCER, {}), INLINE)
    assert files(root) == whole, "no claim, no lock: it may lie where nothing can be written"
    claims.close()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--part", "0/8"], "no part 0 of 8"),
        (["--part", "3"], "give I/N"),
        (["--part", "slurm"], "there is no SLURM_ARRAY_TASK_ID"),
        (["--part", "1/2", "--executor", "ray"], "--part does its share in this process"),
        (["--part", "1/2", "--plan-only"], "--part does not go with --plan-only"),
        (["--wait", "--plan-only"], "--wait does not go with --plan-only"),
        (["--own-share-only"], "--own-share-only does not go with a run without --part"),
    ],
)
def test_mistakes_are_one_line_in_all_three(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
    message: str,
) -> None:
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    root = make_dataset(str(tmp_path / "set")).root
    for main, words in (
        (make_sidecar.main, [root, "chains"]),
        (mine_negatives.main, ["--data", root, "--detector", "proposals"]),
        (mine_chains.main, ["--data", root, "--boxes", "proposals"]),
    ):
        assert main([*words, *more]) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1
    assert not Path(root, "sidecars").exists()


def test_purity_is_measured_by_who_sums_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = make_dataset(str(tmp_path / "set")).root, tmp_path / "purity.json"
    words = ["--data", root, "--boxes", "proposals", "--native", "never", "--cuts", "none", "--output", str(out)]
    assert mine_chains.main([*words, "--part", "1/2", "--own-share-only"]) == 0
    assert not out.exists()
    assert mine_chains.main([*words, "--part", "2/2"]) == 0
    assert out.exists() and "counted in all: " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.ray
def test_a_pool_and_a_part_on_one_sidecar(whole: dict[str, bytes], tmp_path: Path) -> None:
    root = make_dataset(str(tmp_path / "set")).root
    command = [sys.executable, str(ROOT / "jobs" / "make_sidecar.py"), root, "b", "--producer", PRODUCER]
    pool = subprocess.Popen(
        [*command, "--workers", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=job_environment(),
        cwd=ROOT,
    )
    wait_for(lambda: Path(root, "sidecars", "b", "sidecar.json").exists(), "the pool has begun", pool)
    part = start("make_sidecar", *command[2:], "--part", "2/2")
    texts = [process.communicate(timeout=TIMEOUT_S)[0] for process in (part, pool)]
    assert [part.returncode, pool.returncode] == [0, 0], texts
    assert files(root) == whole
