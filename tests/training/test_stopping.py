"""Stopping within the grace: what is saved, what is not, and that waiting for data is broken off."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.metrics.test_recorder import read
from tests.training.tiny_runs import make_data, result, rows, run_tiny, tiny_recipe
from trackmill.pipeline.loader.loader import ShardLoader
from trackmill.pipeline.metrics.definitions import TRAINING
from trackmill.pipeline.training import checkpoint, loop
from trackmill.pipeline.training.launch import worker
from trackmill.pipeline.training.prepare import starting_point
from trackmill.pipeline.training.stopping import NOT_ASKED, Stopping, StopWaiting, seconds_asked, stop_on_signals
from trackmill.pipeline.training.telemetry.lines import read_lines


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_data(tmp_path_factory.mktemp("data"))


def test_how_long_ago_it_was_asked() -> None:
    now = [100.0]
    stopping = Stopping(clock=lambda: now[0])
    assert not stopping() and seconds_asked(stopping) == NOT_ASKED
    stopping.ask(ago_s=3)
    now[0] = 107.0
    stopping.ask()
    assert stopping() and seconds_asked(stopping) == 10
    assert (seconds_asked(lambda: True), seconds_asked(lambda: False)) == (0, NOT_ASKED)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_asks_and_a_second_one_stops_at_once(number: int) -> None:
    with stop_on_signals() as stopping:
        os.kill(os.getpid(), number)
        assert stopping()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


def test_only_a_wait_is_broken_off() -> None:
    with stop_on_signals() as stopping:
        with pytest.raises(StopWaiting), stopping.may_break_off():
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(60)
        with pytest.raises(StopWaiting), stopping.may_break_off():
            pytest.fail("a signal came before")


class AskedAt(Stopping):
    """Asked so many seconds ago, at the end of a step."""

    def __init__(self, step: int, ago_s: float) -> None:
        super().__init__(clock=lambda: 0.0)
        self._steps, self._at, self._ago_s = 0, step, ago_s

    def asked_s(self) -> float:
        self._steps += 1
        if self._steps == self._at:
            self.ask(self._ago_s)
        return super().asked_s()


@pytest.mark.parametrize(
    ("ago_s", "save_s", "grace_s", "saved"),
    [
        pytest.param(10.0, 5.0, 25.0, 11, id="in time"),
        pytest.param(20.0, 5.0, 25.0, 8, id="a save is too slow"),
        pytest.param(30.0, 0.1, 25.0, 8, id="the step was too slow"),
        pytest.param(300.0, 60.0, 0.0, 11, id="no limit"),
    ],
)
def test_a_step_is_saved_if_there_is_time(
    ago_s: float, save_s: float, grace_s: float, saved: int, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = checkpoint.save

    def slow(*arguments: Any) -> str:
        url = save(*arguments)
        now[0] += save_s
        return url

    now = [0.0]
    monkeypatch.setattr(checkpoint, "save", slow)
    # The loop's clock alone: whatever waits with a timeout needs one that goes.
    clocks = SimpleNamespace(monotonic=lambda: now[0], perf_counter=time.perf_counter)
    monkeypatch.setattr(loop, "time", clocks)
    recipe = tiny_recipe(data, checkpoint={"grace_s": grace_s}, watchdog={"timeout_s": 0})
    stopped = worker(recipe.model_dump(), str(tmp_path), device="cpu", should_stop=AskedAt(11, ago_s))
    monkeypatch.undo()
    assert stopped.interrupted and stopped.step == 11
    found = starting_point(str(tmp_path), "auto")
    assert found is not None and found.step == saved
    told = [row["text"] for row in read_lines(str(tmp_path / "events.jsonl")) if "is not saved" in row["text"]]
    assert len(told) == (saved != 11)
    assert not told or "the checkpoint of step 8 counts, and 3 steps are taken again" in told[0]


def test_a_signal_while_data_is_waited_for_and_metrics(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data of step 12 never comes; the signal ends the wait, and the run goes on later as if nothing had been."""
    following = ShardLoader.__next__

    def stuck(self: ShardLoader[Any]) -> Any:
        if self.batches_done == 11:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
            threading.Event().wait(600)
        return following(self)

    undisturbed, output = tmp_path / "undisturbed", tmp_path / "out"
    run_tiny(data, undisturbed, max_steps=16)
    monkeypatch.setattr(ShardLoader, "__next__", stuck)
    stopped = run_tiny(data, output, max_steps=16)
    assert stopped.interrupted and stopped.step == 11
    monkeypatch.undo()
    file = tmp_path / "train.prom"
    assert not run_tiny(data, output, max_steps=16, telemetry={"metrics_file": str(file)}).interrupted
    assert rows(output) == rows(undisturbed)
    assert result(output) == result(undisturbed)
    found = read(file.read_text())
    never = {f"trackmill_training_{name}" for name in ("skipped_steps_total", "evaluation", "number")}
    assert {key[0] for key in found} >= {metric.name for metric in TRAINING} - never
    last = read_lines(str(output / "metrics.jsonl"))[-1]
    assert found["trackmill_training_step", "out"] == found["trackmill_training_steps_planned", "out"] == 16
    assert found["trackmill_training_loss", "total", "out"] == pytest.approx(last["loss"])
    assert found["trackmill_training_learning_rate", "out"] == pytest.approx(last["lr"])
    assert found["trackmill_training_checkpoint_step", "out"] == 16
    assert found["trackmill_training_checkpoint_bytes", "out"] > 1000
    assert found["trackmill_training_running", "out"] == 0
