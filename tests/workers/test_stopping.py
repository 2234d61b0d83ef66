"""Being asked to stop: once, twice, and with no time at all."""

from __future__ import annotations

import os
import signal
import time

import pytest

from trackmill.pipeline.workers.stopping import Stopping, seconds_to_work

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_and_the_second_one_raises(number: int, caplog: pytest.LogCaptureFixture) -> None:
    clock, before = Clock(), signal.getsignal(number)
    with Stopping(25, clock) as stopping:
        stopping.end(3)  # nobody asked
        os.kill(os.getpid(), number)
        assert stopping.asked and not stopping.late
        assert stopping.begins() and not stopping.begins(), "once"
        assert "no longer than 25 s (`run.grace_s`)" in caplog.text
        clock.now = 25
        assert stopping.late
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            time.sleep(60)
        with pytest.raises(KeyboardInterrupt):
            stopping.end(1)
        assert "stopped: 1 unit in hand not finished, and dropped; the next run goes on from here" in caplog.text
    assert signal.getsignal(number) == before


def test_what_is_finished_and_what_is_dropped_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with Stopping(25) as stopping:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            stopping.end(0)
        assert "all units that were in hand are finished" in caplog.text
        with pytest.raises(KeyboardInterrupt):
            stopping.end(3)
        assert "3 units in hand not finished" in caplog.text


def test_with_no_grace_nothing_is_changed() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Stopping(0):
        assert signal.getsignal(signal.SIGTERM) == before


def test_a_part_of_the_time_is_for_publishing() -> None:
    assert seconds_to_work(25) == 20
