"""Parts: which share is whose, who helps whom, what schedulers say; four at once write what one writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.runs import ROOT, mine, receipts_written, start_mining, statuses, tars, wait_for
from trackmill.jobs import mine_proposals
from trackmill.pipeline.storage.claim_files import FOLDER
from trackmill.pipeline.storage.claims import Claims
from trackmill.pipeline.workers.parts import Part, read_part
from trackmill.pipeline.workers.share import Share
from trackmill.schemas.errors import InputError
from trackmill.schemas.keys import unit_name

_WITHOUT_RAY = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "ray":
            raise ModuleNotFoundError("there is no Ray here")
sys.meta_path.insert(0, Refuse())
from trackmill.jobs import mine_proposals
code = mine_proposals.main(sys.argv[1:])
assert "ray" not in sys.modules
sys.exit(code)
"""
SLURM = {"SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_MAX": "24", "SLURM_ARRAY_TASK_STEP": "2"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for number in range(16):
        Image.fromarray(random.integers(0, 255, (32, 40, 3), np.uint8)).save(folder / f"p{number:02d}.png")
    return folder


def _words(pictures: Path, output: Path, *more: object) -> list[str]:
    words = ["--input", pictures, "--source", "images", "--output", output, "--set", "shards.unit_frames=2"]
    return [str(word) for word in [*words, "--set", "run.isolate=false", *more]]


def test_shares_are_disjoint_contiguous_and_whole() -> None:
    for count in (1, 3, 8, 40):
        parts = [Part(index, count) for index in range(1, count + 1)]
        assert [unit for part in parts for unit in part.own(range(33))] == list(range(33))
        for part in parts:
            assert sorted([*part.own(range(33)), *part.to_help(range(33))]) == list(range(33))
    assert list(Part(1, 2).to_help(range(6))) == [5, 4, 3], "from the end, as its own part comes from the front"


@pytest.mark.parametrize(
    ("text", "environment", "index", "count"),
    [
        ("3/8", {}, 3, 8),
        ("kubernetes/8", {"JOB_COMPLETION_INDEX": "0"}, 1, 8),
        ("slurm", {**SLURM, "SLURM_ARRAY_TASK_ID": "10"}, 1, 8),
        ("slurm", {**SLURM, "SLURM_ARRAY_TASK_ID": "24"}, 8, 8),
    ],
)
def test_what_schedulers_say(text: str, environment: dict[str, str], index: int, count: int) -> None:
    assert read_part(text, environment) == Part(index, count)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0/8", "no part 0 of 8"),
        ("9/8", "no part 9 of 8"),
        ("3", "give I/N"),
        ("slurm", "there is no SLURM_ARRAY_TASK_ID"),
        ("kubernetes/8", "there is no JOB_COMPLETION_INDEX"),
    ],
)
def test_what_is_no_part(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_part(text, {})


def test_a_share_takes_what_nobody_has_and_says_what_is_left(tmp_path: Path) -> None:
    done: set[int] = {0}
    mine_, other = Claims(str(tmp_path), "mine"), Claims(str(tmp_path), "mine")
    mine_.join()
    other.join()
    other.claim([unit_name(1), unit_name(5)])
    share = Share(mine_, range(6), unit_name, lambda: done, lambda unit: unit not in done, Part(1, 2))
    order = []
    for unit in share.units(may_wait=True):
        order.append(unit)
        done.add(unit)
        share.release(unit)
    assert order == [2, 4, 3], "its own first, then the other share from its end, nothing that lives in other hands"
    assert share.left() == [1, 5]
    other.close()
    assert sorted(share.units(may_wait=False)) == [1, 5]
    mine_.close()
    assert not (tmp_path / FOLDER).exists()


def test_a_part_needs_no_ray_and_leaves_the_rest(pictures: Path, tmp_path: Path) -> None:
    words = _words(pictures, tmp_path / "out", "--part", "2/2", "--own-share-only")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", _WITHOUT_RAY, *words], capture_output=True, text=True, env=environment, timeout=540
    )
    assert run.returncode == 0, run.stderr
    assert "done by part 2/2: 4 units, 8 items (8 ok)" in run.stdout
    assert "4 units are left: 0 in work elsewhere, 4 of other parts" in run.stdout
    assert not (tmp_path / "out" / "manifest").exists()
    assert not (tmp_path / "out" / FOLDER).exists()


def test_a_plan_can_be_made_first_and_others_settings_are_refused(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert mine_proposals.main(_words(pictures, output, "--as-planned", "--part", "1/2")) == 2
    assert "nothing was planned" in capsys.readouterr().err
    assert mine_proposals.main(_words(pictures, output, "--stop-after-plan")) == 0
    assert not (output / "shards").exists()
    working = Claims(str(output), "mine")
    working.join()
    changed = _words(pictures, output, "--part", "1/2", "--set", "read.longest_side=16")
    assert mine_proposals.main(changed) == 2
    assert "others are at work on it" in capsys.readouterr().err
    working.close()
    assert mine_proposals.main(_words(pictures, output, "--as-planned", "--part", "1/2")) == 0
    assert "done: 16 items (16 ok); 8 units done now, 8 in all" in capsys.readouterr().out


def test_options_that_do_not_go_together(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in (
        ["--part", "1/2", "--executor", "ray"],
        ["--part", "1/2", "--plan-only"],
        ["--own-share-only"],
        ["--as-planned", "--limit", "3"],
        ["--stop-after-plan", "--only-quarantined"],
    ):
        assert mine_proposals.main(_words(pictures, tmp_path / "out", *more)) == 2
        assert "does not go with" in capsys.readouterr().err


@pytest.mark.slow
def test_four_parts_at_once_one_of_them_killed(pictures: Path, tmp_path: Path) -> None:
    mine(*_words(pictures, tmp_path / "one", "--executor", "inline"))
    output = tmp_path / "four"
    parts = [
        start_mining(*_words(pictures, output, "--part", f"{index}/4", "--set", "run.claim_expires_s=8"))
        for index in range(1, 5)
    ]
    wait_for(lambda: receipts_written(output) >= 1, "a unit is done", parts[3])
    parts[0].kill()
    texts = [part.communicate(timeout=540)[0] for part in parts]
    assert [part.returncode for part in parts[1:]] == [0, 0, 0], texts
    assert tars(output) == tars(tmp_path / "one")
    assert statuses(output) == statuses(tmp_path / "one")
    assert (output / "manifest" / "items.parquet").exists()
    assert not (output / FOLDER).exists()


@pytest.mark.slow
def test_two_jobs_with_different_inputs_lose_nothing(pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    files = sorted(pictures.iterdir())
    jobs = [
        start_mining("--input", *half, *_words(pictures, output, "--part", "1/1")[2:])
        for half in (files[:8], files[8:])
    ]
    texts = [job.communicate(timeout=540)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], texts
    assert len(statuses(output)) == 16


@pytest.mark.slow
@pytest.mark.ray
def test_a_pool_and_a_part_on_one_output(pictures: Path, tmp_path: Path) -> None:
    mine(*_words(pictures, tmp_path / "one", "--executor", "inline"))
    output = tmp_path / "mixed"
    pool = start_mining(*_words(pictures, output, "--workers", 2))
    wait_for(lambda: (output / FOLDER).exists(), "the pool has joined", pool)
    mine(*_words(pictures, output, "--part", "3/3"))
    text = pool.communicate(timeout=540)[0]
    assert pool.returncode == 0, text
    assert tars(output) == tars(tmp_path / "one")
    assert statuses(output) == statuses(tmp_path / "one")


def test_what_one_picture_makes_is_told_in_the_singular(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--input", str(pictures / "p00.png"), *_words(pictures, tmp_path / "one")[2:], "--executor", "inline"]
    assert mine_proposals.main(words) == 0
    printed = capsys.readouterr().out
    assert "1 item, 1 frame in 1 unit, proposer" in printed
    assert "done: 1 item (1 ok); 1 unit done now, 1 in all" in printed and "\n1 shard, " in printed
    words = ["--input", *map(str, sorted(pictures.iterdir())[:3]), *_words(pictures, tmp_path / "two")[2:]]
    assert mine_proposals.main([*words, "--part", "2/2", "--own-share-only"]) == 0
    printed = capsys.readouterr().out
    assert "done by part 2/2: 1 unit, 1 item (1 ok)\n1 frame, " in printed
    assert "1 unit is left: 0 in work elsewhere, 1 of other parts" in printed
