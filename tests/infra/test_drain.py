"""A machine that is taken away: what holds work there is asked to end, and waited for."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from trackmill.pipeline import drain as module
from trackmill.pipeline.drain import drain, main

ENDS = "import signal, time; signal.signal(signal.SIGTERM, lambda *a: (time.sleep(0.3), exit(0))); print(flush=True); "
STAYS = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); "


@contextlib.contextmanager
def called(title: str, script: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose command line begins with a title, as Ray's workers' do."""
    command = ["bash", "-c", 'exec -a "$0" "$1" -c "$2"', title, sys.executable, script + "time.sleep(600)"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # it has its handler
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_miners_are_asked_and_waited_for_and_others_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with called("ray::MinerActor.mine", ENDS) as miner, called("ray::IDLE", ENDS) as idle:
        keep_to(monkeypatch, miner, idle)
        said: list[str] = []
        assert drain(60, said.append, tell=lambda s: "nobody there")
        assert miner.wait() == 0 and idle.poll() is None
    assert said == [
        "Ray was not told that this machine goes: nobody there",
        "1 processes were asked to finish what they hold",
        "all have ended",
    ]


def test_who_does_not_end_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with called("ray::RayTrainWorker.execute", STAYS) as rank:
        keep_to(monkeypatch, rank)
        said: list[str] = []
        begin = time.monotonic()
        assert not drain(0.5, said.append, tell=lambda s: "")
        assert time.monotonic() - begin >= 0.5 and rank.poll() is None
    assert said[-1] == "1 are still at work after 0.5 s"


def keep_to(monkeypatch: pytest.MonkeyPatch, *processes: subprocess.Popen[bytes]) -> None:
    """Only these are looked at: other tests' miners on this machine go on."""
    pids = {process.pid for process in processes}
    every = module.psutil.process_iter
    monkeypatch.setattr(module.psutil, "process_iter", lambda: [each for each in every() if each.pid in pids])


@pytest.mark.parametrize(
    ("words", "holds"),
    [
        (["ray::MinerActor.mine"], True),
        (["ray::RayTrainWorker.execute"], True),
        (["python", "jobs/train.py", "--recipe", "x"], True),
        (["/opt/bin/python", "-m", "trackmill.jobs.mine_proposals"], True),
        (["/opt/bin/python", "/opt/bin/trackmill", "mine"], True),
        # it waits for a job elsewhere, which has its own machine
        (["python", "ray", "job", "submit", "--", "python", "jobs/train.py"], False),
        (["ray::IDLE"], False),
        (["python", "-m", "trackmill.pipeline.drain"], False),
        (["vim", "jobs.py"], False),
    ],
)
def test_what_holds_work(words: list[str], holds: bool) -> None:
    assert module._holds_work(words) is holds


def test_the_command_says_by_its_code_whether_all_has_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "ours", list)
    monkeypatch.setattr(module, "tell_ray", lambda s: "")
    monkeypatch.setattr(module.drain, "__defaults__", (print, module.tell_ray))
    assert main(["--within", "1"]) == 0
    assert "drain: all have ended" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--witin", "1"])
