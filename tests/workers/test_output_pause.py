"""An output that cannot be written for a while: what passes, how long nothing is begun, what is told, when it ends."""

from __future__ import annotations

import errno
import itertools
import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.workers.test_decisions import begin, unit
from tests.workers.test_stopping import Clock
from trackmill.pipeline.storage.claims import Claims
from trackmill.pipeline.workers import output_pause
from trackmill.pipeline.workers.decisions import FAILURES_OF_A_UNIT, Decisions
from trackmill.pipeline.workers.inflight import InFlightNote
from trackmill.pipeline.workers.inline import InlineWorker
from trackmill.pipeline.workers.item_clock import ItemClock
from trackmill.pipeline.workers.output_pause import may_pass
from trackmill.pipeline.workers.share import Share
from trackmill.pipeline.workers.status import LiveStatus
from trackmill.pipeline.workers.task import StorageFailed, UnitTask
from trackmill.pipeline.workers.turns import Turns
from trackmill.pipeline.workers.work_times import Ledger
from trackmill.schemas.errors import StorageError

FULL = OSError(errno.ENOSPC, "No space left on device", "/out/shards/part-00000000.tar")


def failed(cause: Exception = FULL) -> StorageFailed:
    error = StorageFailed(f"unit 0: cannot write its output: {cause}")
    error.__cause__ = cause
    return output_pause.marked(error)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (FULL, True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (StorageError("s3://b/out: gave up after 5 attempts: SlowDown"), True),
        (OSError(errno.EFBIG, "File too large"), False),
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), False),
        (ValueError("odd"), False),
        (None, False),
    ],
)
def test_what_may_pass(error: Exception | None, passes: bool) -> None:
    assert may_pass(error) is passes
    if isinstance(error, OSError):
        there = pickle.loads(pickle.dumps(failed(error)))
        assert there.may_pass is passes, "the driver is told, though a cause does not travel"


def test_a_pool_begins_nothing_for_longer_and_longer_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    decisions = Decisions((unit(number) for number in range(4)), 2, 0, clock=clock)
    ours = begin(decisions)
    caplog.clear()
    for pause in (5, 10, 20, 40):
        for number in ours:
            decisions.failed(number, failed())
        clock.now += pause - 0.01
        assert decisions.orders().give == [], "neither what failed nor anything new"
        clock.now += 0.02
        given = dict(decisions.orders().give)
        assert {task.unit for task in given.values()} == {0, 1}
        ours = given
    assert len(caplog.messages) == 1
    assert "/out/shards/part-00000000.tar" in caplog.text and "; tries again in 5 s, and then" in caplog.text
    with pytest.raises(StorageFailed):
        decisions.failed(next(iter(ours)), failed())


def test_a_pool_goes_on_as_soon_as_something_was_written(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="trackmill")
    decisions = Decisions((unit(number) for number in range(4)), 2, 0, clock=Clock())
    begin(decisions)
    decisions.failed(0, failed())
    assert decisions.orders().give == []
    decisions.finished(1, 1)
    assert [task.unit for _, task in decisions.orders().give] == [0, 2]
    assert "the output can be written again" in caplog.text
    decisions.failed(0, failed())
    assert caplog.text.count("tries again in") == 2, "another time, another message"


def test_other_failures_wait_for_nothing() -> None:
    decisions = Decisions((unit(number) for number in range(4)), 1, 0, clock=Clock())
    begin(decisions)
    for error in (ValueError("odd"), failed(PermissionError(errno.EACCES, "Permission denied"))):
        decisions.failed(0, error)
        assert [task.unit for _, task in decisions.orders().give] == [0]


class Worker:
    """Does units at once, but for those tries that raise."""

    def __init__(self, errors: Callable[[int], Exception | None]) -> None:
        self.note = InFlightNote()
        self.clock = ItemClock(0)
        self.turns = Turns(self.note, LiveStatus(), Ledger())
        self.status = LiveStatus().read()
        self.tries: Counter[int] = Counter()
        self._errors = errors

    def run_unit(self, task: UnitTask) -> Any:
        with self.turns.hold(task), self.turns.work(task):
            self.tries[task.unit] += 1
            if (error := self._errors(task.unit)) is not None:
                raise StorageFailed(f"{task.title}: cannot write its output: {error}") from error
            return SimpleNamespace(unit=task.unit, times=Ledger().take())

    def close(self) -> None:
        self.note.remove()


def run(errors: Callable[[int], Exception | None], units: int = 3) -> tuple[Worker, Iterator[Any]]:
    worker = Worker(errors)
    return worker, InlineWorker(lambda: worker, lambda states: None).run(unit(number) for number in range(units))


def test_in_this_process_a_unit_is_tried_again_until_there_is_room(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(output_pause, "FIRST_PAUSE_S", 0.01)
    failures = iter([FULL, None, FULL, FULL])
    worker, results = run(lambda _: next(failures, None))
    assert sorted(result.unit for result in results) == [0, 1, 2]
    assert worker.tries.total() == 6
    assert "tries again in" in caplog.text


def test_in_this_process_the_fifth_failure_of_a_unit_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_pause, "FIRST_PAUSE_S", 0.01)
    worker, results = run(lambda number: FULL if number == 1 else None)
    with pytest.raises(StorageFailed, match="No space left"):
        list(results)
    assert worker.tries[1] == FAILURES_OF_A_UNIT


def test_in_this_process_what_does_not_pass_ends_the_run_at_once() -> None:
    worker, results = run(lambda number: OSError(errno.EFBIG, "File too large"), units=1)
    with pytest.raises(StorageFailed, match="File too large"):
        list(results)
    assert worker.tries[0] == 1


class FullClaims(Claims):
    """Of several pieces the first is claimed before the disk is full, a few times."""

    refusals = 0

    def claim(self, pieces: Any) -> list[str]:
        pieces = list(pieces)
        if self.refusals:
            self.refusals -= 1
            super().claim(pieces[:1])
            raise FULL
        return super().claim(pieces)


def test_a_claim_waits_for_room_too(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(output_pause, "FIRST_PAUSE_S", 0.01)
    claims, done = FullClaims(str(tmp_path), "mine"), set[int]()
    claims.join()
    share = Share(claims, range(4), str, lambda: done, lambda number: number not in done)
    share._most_at_once = share._at_once = 2
    units = share.units(may_wait=False)
    for number in itertools.islice(units, 1):
        assert number == 0
    claims.refusals = 2
    for number in units:
        done.add(number)
    assert done == {1, 2, 3}, "none is left in nobody's hands"
    assert caplog.text.count("no unit can be claimed: /out/shards/part-00000000.tar: no space is left") == 1
    claims.refusals = FAILURES_OF_A_UNIT
    done.clear()
    for number in range(4):
        share.release(number)
    with pytest.raises(OSError, match="No space left"):
        list(share.units(may_wait=False))
    claims.close()
