"""The watchdog: names rank, stage and code of a hang, tells who is behind, ends the process, and else keeps quiet."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trackmill.pipeline.training.watchdog import FIRST_STEP, HANG_EXIT, Note, Watchdog, WatchdogSettings, who_is_behind

HANGS = """
import ctypes, sys, threading, time
import trackmill.pipeline.training.watchdog as module
from trackmill.pipeline.training.watchdog import Watchdog, WatchdogSettings

def the_stuck_function():
    {stuck}

with Watchdog(WatchdogSettings(timeout_s=0.4, abort={abort}), 1, sys.argv[1], world={world}) as watchdog:
    watchdog.stage("forward", 16)
    watchdog.stage("backward", 17)
    the_stuck_function()
    watchdog.stage("step", 17)
    time.sleep(1.5)
"""


def run(output: Path, stuck: str, abort: bool = True, world: int = 1) -> subprocess.CompletedProcess[str]:
    code = HANGS.format(stuck=stuck, abort=abort, world=world)
    return subprocess.run(
        [sys.executable, "-c", code, str(output)], capture_output=True, text=True, timeout=300, check=False
    )


def test_a_hanging_rank_is_named_and_ended(tmp_path: Path) -> None:
    result = run(tmp_path, "time.sleep(600)")
    assert result.returncode == HANG_EXIT
    said = result.stderr
    assert re.search(r"watchdog: rank 1 is in 'backward' since [-\d]+ [:\d]+ UTC, at step 17 \(.*pid \d+\)", said)
    assert "another rank may be the one that hangs" in said
    assert "in the_stuck_function" in said, "the stack of the main thread"
    assert f"rank 1 still hangs in 'backward': ending it with code {HANG_EXIT}" in said
    left = (tmp_path / "hangs" / "rank-1.txt").read_text()
    assert "rank 1 is in 'backward'" in left and "in the_stuck_function" in left
    assert json.loads((tmp_path / "hangs" / "rank-1.json").read_text())["step"] == 17


def test_a_hang_that_keeps_the_interpreter_is_ended_as_well(tmp_path: Path) -> None:
    # PyDLL does not give up the interpreter lock; the slack is for busy machines.
    result = run(tmp_path, "module._SLACK_S = 0.5; time.sleep(0.2); ctypes.PyDLL(None).sleep(600)")
    assert result.returncode == 1
    assert "Timeout" in result.stderr and "in the_stuck_function" in result.stderr


def test_without_abort_it_only_speaks(tmp_path: Path) -> None:
    result = run(tmp_path, "threading.Event().wait(2)", abort=False)
    assert result.returncode == 0
    assert result.stderr.count("rank 1 is in 'backward'") == 1, "once for each hang"
    assert "it is ended in" not in result.stderr
    assert re.search(r"rank 1 goes on, 'backward' took \d+ s", result.stderr)


def wait_for(path: Path, text: str) -> str:
    for _ in range(600):
        if path.exists() and text in path.read_text():
            return path.read_text()
        time.sleep(0.1)
    raise AssertionError(f"{path} never said {text!r}")


def test_each_rank_says_who_is_behind(tmp_path: Path) -> None:
    settings = WatchdogSettings(timeout_s=0.5, abort=False)
    with Watchdog(settings, 0, str(tmp_path), world=2) as zero, Watchdog(settings, 1, str(tmp_path), world=2) as one:
        for step in (1, 2):
            one.stage("waiting for data", step)
        wait_for(tmp_path / "hangs" / "rank-1.json", "waiting for data")
        for step in (1, 2):
            zero.stage("backward", step)
        said = wait_for(tmp_path / "hangs" / "rank-0.txt", "furthest behind")
    assert "furthest behind: rank 1 is in 'waiting for data'" in said


def note(rank: int, stage: str, step: int, since: float) -> Note:
    return Note(rank, stage, step, since, since + 600, "host", 1)


@pytest.mark.parametrize(
    ("notes", "said"),
    [
        ([note(0, "backward", 9, 5), note(1, "waiting for data", 9, 4)], "furthest behind: rank 1 is in 'waiting for"),
        ([note(0, "forward", 9, 2), note(1, "backward", 8, 3)], "furthest behind: rank 1 is in 'backward'"),
        ([note(0, "backward", 9, 5), note(1, "backward", 9, 4)], "2 of 2 ranks hang at the same place: 'backward'"),
        ([note(0, "backward", 9, 5)], "nothing was heard from rank 1"),
        ([], "nothing was heard from rank 0, 1"),
    ],
)
def test_who_is_behind(notes: list[Note], said: str) -> None:
    assert said in who_is_behind(notes, 2)


def test_notes_of_earlier_hangs_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "hangs").mkdir()
    old = {"rank": 1, "stage": "forward", "step": 3, "since": 1e9, "said": 1e9 + 600, "host": "h", "pid": 1}
    (tmp_path / "hangs" / "rank-1.json").write_text(json.dumps(old))
    (tmp_path / "hangs" / "rank-0.txt").write_text("what an earlier hang left\n")
    with Watchdog(WatchdogSettings(timeout_s=0.2, abort=False), 0, str(tmp_path), world=2) as watchdog:
        watchdog.stage("backward", 1)
        said = wait_for(tmp_path / "hangs" / "rank-0.txt", "nothing was heard from rank 1")
    assert said.startswith("what an earlier hang left\n") and "'forward'" not in said


def test_work_that_goes_on_is_left_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Watchdog(WatchdogSettings(timeout_s=60), 0, str(tmp_path / "run")) as watchdog:
        for step in range(1000):
            watchdog.stage("forward", step)
    with Watchdog(WatchdogSettings(timeout_s=0), 0, str(tmp_path / "run")) as watchdog:
        watchdog.stage("forward", 0)
    assert capfd.readouterr().err == ""
    assert not (tmp_path / "run").exists()


def test_the_first_step_and_patient_stages_get_longer(tmp_path: Path) -> None:
    watchdog = Watchdog(WatchdogSettings(timeout_s=10), 0, str(tmp_path))
    limits = []
    for name, step, patience in (("forward", 40, 1), ("backward", 40, 1), ("forward", 41, 1), ("evaluation", 41, 5)):
        watchdog.stage(name, step, patience=patience)
        limits.append(watchdog._stage.limit_s)
    assert limits == [10 * FIRST_STEP, 10 * FIRST_STEP, 10, 50]


def test_storage_that_hangs_does_not_save_the_process(tmp_path: Path) -> None:
    code = HANGS.format(stuck="time.sleep(600)", abort=True, world=2).replace(
        "def the_stuck",
        "module.publish_bytes = lambda url, data: time.sleep(600)\n\ndef the_stuck",
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == HANG_EXIT and "rank 1 is in 'backward'" in result.stderr
