"""Every decision of the pool, without a cluster: blame, failures, replacement. Real kills: tests/faults."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from trackmill.pipeline.workers.decisions import Decisions, Orders, PoolFailed
from trackmill.pipeline.workers.inflight import InFlight
from trackmill.pipeline.workers.task import StorageFailed, UnitDropped, UnitTask
from trackmill.schemas.media import WorkItem

GONE = RuntimeError("the actor died")


def unit(number: int, items: int = 4) -> UnitTask:
    names = [f"{number}-{position}.jpg" for position in range(items)]
    work = [WorkItem(source="images", source_id=name, key=name, uri=name) for name in names]
    return UnitTask(unit=number, items=work, positions=list(range(items)))


def pool(units: int = 3, size: int = 1, recycle: int = 0) -> Decisions:
    return Decisions((unit(number) for number in range(units)), size, recycle)


def begin(decisions: Decisions) -> dict[int, UnitTask]:
    """Start what is to be started, and say what each worker then does."""
    orders = decisions.orders()
    for number in orders.start:
        decisions.started(number, f"w{number}")
    return dict(orders.give) | dict(decisions.orders().give)


def in_hand(number: int, *positions: int) -> tuple[InFlight, ...]:
    return (InFlight(number, frozenset(positions)),)


def only(decisions: Decisions) -> tuple[int, UnitTask]:
    """The one worker that gets a unit now, after whoever is missing was started."""
    ((number, task),) = begin(decisions).items()
    return number, task


def test_units_in_their_order_and_then_the_end() -> None:
    decisions, done = pool(units=5, size=2), []
    busy = begin(decisions)
    assert {number: task.unit for number, task in busy.items()} == {0: 0, 1: 1}
    while not decisions.finished_all:
        number, task = busy.popitem()
        assert list(decisions.tasks_of(number).values()) == [task]
        done.append(task.unit)
        decisions.finished(number, task.unit)
        orders = decisions.orders()
        assert orders.start == [], "nobody is missing"
        busy.update(orders.give)
    assert sorted(done) == [0, 1, 2, 3, 4]


def test_units_are_taken_only_when_somebody_is_there() -> None:
    taken: list[int] = []

    def tasks() -> Iterator[UnitTask]:
        for number in range(100):
            taken.append(number)
            yield unit(number)

    decisions = Decisions(tasks(), 3, 0)
    decisions.orders()
    decisions.orders()
    assert taken == [0, 1, 2]


def test_no_more_workers_than_units() -> None:
    assert len(pool(units=2, size=8).orders().start) == 2
    nothing = pool(units=0, size=8)
    assert nothing.orders().start == []
    assert nothing.finished_all


def test_those_that_start_too_late_are_not_waited_for() -> None:
    decisions = pool(units=2, size=2)
    first, _ = decisions.orders().start
    decisions.started(first, "w")
    for _ in range(2):
        ((number, task),) = decisions.orders().give
        decisions.finished(number, task.unit)
    decisions.orders()
    assert decisions.finished_all, "the second worker is still starting"


def test_a_death_at_the_start_blames_nobody_and_the_third_in_a_row_ends_the_run() -> None:
    decisions = pool(size=1)
    for _ in range(2):
        (number,) = decisions.orders().start
        decisions.died(number, GONE, None)
    (number,) = decisions.orders().start
    decisions.started(number, "w")  # one that lives: from here on it counts anew
    decisions.died(number, GONE, None)
    for _ in range(2):
        (number,) = decisions.orders().start
        decisions.died(number, GONE, None)
    (number,) = decisions.orders().start
    with pytest.raises(PoolFailed, match=r"3 workers died while starting .* none is at work; last: the actor died"):
        decisions.died(number, GONE, None)


def test_workers_that_die_while_starting_do_not_end_a_run_in_which_others_work() -> None:
    decisions = pool(units=20, size=8)
    first, *others = decisions.orders().start
    decisions.started(first, "w0")
    decisions.orders()
    for number in others:
        decisions.died(number, GONE, None)
    for _ in range(10):
        (number,) = decisions.orders().start  # one at a time from now on
        decisions.died(number, GONE, None)
    (number,) = decisions.orders().start
    decisions.started(number, "w1")
    assert len(decisions.orders().start) == 6, "one that lives shows that they can"


def test_a_machine_that_goes_away_is_nobodys_fault(caplog: pytest.LogCaptureFixture) -> None:
    """A pre-empted machine with eight workers that are loading their model, and one with workers at work."""
    decisions = pool(units=8, size=8)
    for number in decisions.orders().start:
        decisions.died(number, GONE, None, machine_lost=True)
    assert "a machine went away while a worker was starting there" in caplog.text
    for _ in range(10):
        number, task = next(iter(begin(decisions).items()))
        decisions.died(number, GONE, None, machine_lost=True)
    assert task.poisoned == {}
    assert "went away with its machine" in caplog.text


def test_a_unit_that_takes_down_every_machine_ends_the_run() -> None:
    decisions = pool(units=1)
    for _ in range(19):
        number, _ = only(decisions)
        decisions.died(number, GONE, None, machine_lost=True)
    number, _ = only(decisions)
    with pytest.raises(PoolFailed, match="unit 0: its machine went away 20 times"):
        decisions.died(number, GONE, None, machine_lost=True)


def test_units_that_are_all_lost_often_end_no_run() -> None:
    """Machines that live for minutes, and units that take minutes."""
    decisions = pool(units=8, size=8)
    for _ in range(60):
        for number in begin(decisions):
            decisions.died(number, GONE, None, machine_lost=True)
    assert len(begin(decisions)) == 8


def test_a_start_that_raises_ends_the_run_with_its_error() -> None:
    decisions = pool()
    (number,) = decisions.orders().start
    with pytest.raises(ImportError, match="no torch"):
        decisions.failed(number, ImportError("no torch"))


def test_one_item_in_hand_at_a_death_is_tried_once_more_alone(caplog: pytest.LogCaptureFixture) -> None:
    decisions = pool()
    number, _ = only(decisions)
    with caplog.at_level("WARNING", "trackmill"):
        decisions.died(number, GONE, in_hand(0, 2))
    assert "worker w0 died with 0-2.jpg in hand; unit 0 is done again" in caplog.text
    number, again = only(decisions)
    assert (again.unit, again.serial, again.poisoned) == (0, True, {})
    decisions.finished(number, 0)
    _, task = only(decisions)
    assert (task.unit, task.serial) == (1, False), "other units are done as ever"


def test_an_item_in_hand_at_two_deaths_is_left_out() -> None:
    decisions = pool()
    for _ in range(2):
        number, _ = only(decisions)
        decisions.died(number, GONE, in_hand(0, 2))
    _, again = only(decisions)
    assert again.poisoned == {2: "2 workers died while they had this item in hand"}
    assert again.serial
    assert again.positions == [0, 1, 2, 3], "it has a row in the receipt all the same"


def test_of_several_in_hand_only_the_one_that_kills_again_is_left_out() -> None:
    decisions = pool()
    number, _ = only(decisions)
    decisions.died(number, GONE, in_hand(0, 1, 2, 3))
    number, again = only(decisions)
    assert again.poisoned == {}, "three of the four did nothing"
    decisions.died(number, GONE, in_hand(0, 3))
    number, again = only(decisions)
    assert list(again.poisoned) == [3]
    decisions.died(number, GONE, in_hand(0, 1))
    _, again = only(decisions)
    assert sorted(again.poisoned) == [1, 3], "what was left out stays so"


def test_the_same_place_in_another_unit_is_another_item() -> None:
    decisions = pool(units=2, size=2)
    busy = begin(decisions)
    for number, task in busy.items():
        decisions.died(number, GONE, in_hand(task.unit, 0))
    assert all(task.poisoned == {} for task in begin(decisions).values())


@pytest.mark.parametrize("note", [None, in_hand(7, 1)], ids=["its machine is gone too", "of another unit"])
def test_a_death_without_a_note_is_a_failure_of_the_unit(note: tuple[InFlight, ...] | None) -> None:
    decisions = pool()
    for _ in range(4):
        number, task = only(decisions)
        assert (task.unit, task.serial, task.poisoned) == (0, False, {})
        decisions.died(number, GONE, note)
    number, _ = only(decisions)
    with pytest.raises(PoolFailed, match=r"unit 0 failed 5 times; last: worker w4 was lost"):
        decisions.died(number, GONE, note)


def test_a_death_between_units_costs_nothing() -> None:
    decisions = pool(units=2)
    number, _ = only(decisions)
    decisions.finished(number, 0)
    decisions.died(number, GONE, None)
    assert only(decisions)[1].unit == 1


def test_a_unit_that_raises_is_done_again_first_and_the_fifth_time_ends_the_run() -> None:
    decisions = pool()
    number, _ = only(decisions)
    for _ in range(4):
        decisions.failed(number, ValueError("odd"))
        ((same, task),) = decisions.orders().give
        assert (same, task.unit) == (number, 0), "the worker lives and goes on; before all other units"
    with pytest.raises(PoolFailed, match=r"unit 0 failed 5 times; last: odd"):
        decisions.failed(number, ValueError("odd"))


def test_failures_are_counted_by_unit() -> None:
    decisions = pool(units=3, size=3)
    for _ in range(4):
        for number in begin(decisions):
            decisions.failed(number, ValueError("odd"))
    assert len(begin(decisions)) == 3


def test_storage_that_fails_five_times_ends_the_run_as_what_it_is() -> None:
    decisions, full = pool(), StorageFailed("unit 0: cannot write its output: no space left")
    number, _ = only(decisions)
    for _ in range(4):
        decisions.failed(number, full)
        decisions.orders()
    with pytest.raises(StorageFailed, match="no space left") as caught:
        decisions.failed(number, full)
    assert caught.value is full


def test_a_worker_that_has_done_enough_works_on_until_its_successor_is_ready() -> None:
    decisions = pool(units=6, recycle=6)
    number, _ = only(decisions)
    decisions.finished(number, 0)
    assert decisions.orders().succeed == [], "four items of six"
    decisions.finished(number, 1)
    orders = decisions.orders()
    assert orders.succeed == [number + 1], "a new number"
    assert [(who, task.unit) for who, task in orders.give] == [(number, 2)], "it goes on"
    assert (orders.start, orders.stop) == ([], [])
    decisions.started(number + 1, "heir")
    orders = decisions.orders()
    assert [(who, task.unit) for who, task in orders.give] == [(number + 1, 3)]
    assert orders.stop == [], "it is not done yet"
    decisions.finished(number, 2)
    orders = decisions.orders()
    assert (orders.stop, orders.give, orders.start) == ([number], [], [])


def test_without_room_for_two_one_is_ended_before_its_successor_starts(caplog: pytest.LogCaptureFixture) -> None:
    decisions = pool(units=9, recycle=1)
    number, _ = only(decisions)
    decisions.finished(number, 0)
    orders = decisions.orders()
    ((_, task),) = orders.give
    (heir,) = orders.succeed
    with caplog.at_level("INFO", "trackmill"):
        decisions.no_room(heir)
    assert "there is no room for two workers in the place of one" in caplog.text
    assert decisions.orders() == Orders([], [], [], []), "its unit is done first"
    decisions.finished(number, task.unit)
    orders = decisions.orders()
    assert (orders.stop, orders.start, orders.succeed) == ([number], [heir + 1], [])
    decisions.started(heir + 1, "next")
    ((same, task),) = decisions.orders().give
    decisions.finished(same, task.unit)
    orders = decisions.orders()
    assert (orders.stop, orders.succeed, orders.give) == ([same], [], []), "that is not tried again"
    assert orders.start == [heir + 2]


def test_a_successor_that_dies_is_followed_by_another_and_one_whose_predecessor_dies_takes_its_place() -> None:
    decisions = pool(units=9, recycle=1)
    number, _ = only(decisions)
    decisions.finished(number, 0)
    (heir,) = decisions.orders().succeed
    decisions.died(heir, GONE, None)
    orders = decisions.orders()
    assert orders.succeed == [heir + 1]
    decisions.died(number, GONE, None)
    assert decisions.orders().start == [], "there is one already"
    decisions.started(heir + 1, "heir")
    ((who, task),) = decisions.orders().give
    assert (who, task.unit) == (heir + 1, 1)


def test_one_that_was_let_go_may_be_asked_about_and_may_die_before_it_is_stopped() -> None:
    decisions = pool(units=2)
    number, _ = only(decisions)
    decisions.failed(number, UnitDropped("unit 0: dropped"), 0)  # it leaves, and has nothing any more
    assert decisions.tasks_of(number) == {}
    decisions.died(number, GONE, None)
    orders = decisions.orders()
    assert (orders.stop, len(orders.start)) == ([number], 1) and decisions.units_in_hand == 0


def test_of_many_that_have_done_enough_a_few_are_succeeded_at_a_time() -> None:
    decisions = pool(units=99, size=16, recycle=1)
    for number, task in begin(decisions).items():
        decisions.finished(number, task.unit)
    assert len(decisions.orders().succeed) == 2
    assert decisions.orders().succeed == []


def test_after_the_last_unit_nobody_is_started_in_place_of_the_one_that_has_done_enough() -> None:
    decisions = pool(units=1, recycle=1)
    number, _ = only(decisions)
    decisions.finished(number, 0)
    orders = decisions.orders()
    assert (orders.start, orders.succeed) == ([], [])
    assert decisions.finished_all


# Two units in hand: one is published while the next one is worked on.


def two_units(units: int = 4) -> tuple[Decisions, int]:
    """A worker that has units 0 and 1."""
    decisions = pool(units=units)
    number, _ = only(decisions)
    assert decisions.orders().give == [], "one is enough until it is nearly done"
    decisions.wants_more(number, 0)
    ((same, task),) = decisions.orders().give
    assert (same, task.unit) == (number, 1)
    return decisions, number


def test_a_worker_holds_two_units_and_no_third() -> None:
    decisions, number = two_units()
    decisions.wants_more(number, 1)
    assert decisions.orders().give == [], "unit 0 has no receipt yet"
    assert not decisions.finished_all
    decisions.finished(number, 0)
    ((_, task),) = decisions.orders().give
    assert task.unit == 2, "that it wanted more is not forgotten"
    assert list(decisions.tasks_of(number)) == [1, 2]


def test_who_has_nothing_comes_before_who_has_something() -> None:
    decisions = pool(units=3, size=2)
    busy = begin(decisions)
    first, second = busy
    decisions.finished(second, busy[second].unit)
    decisions.wants_more(first, busy[first].unit)
    assert [number for number, _ in decisions.orders().give] == [second]
    assert not decisions.finished_all


def test_all_that_has_no_receipt_is_done_again_in_order() -> None:
    decisions, number = two_units()
    decisions.died(number, GONE, (), machine_lost=True)
    number, task = only(decisions)
    assert task.unit == 0
    decisions.finished(number, 0)
    ((_, task),) = decisions.orders().give
    assert task.unit == 1


def test_a_death_is_charged_to_the_unit_whose_items_were_in_hand(caplog: pytest.LogCaptureFixture) -> None:
    """The other unit was being published: that may be to blame too, and fails if it happens again and again."""
    decisions, number = two_units()
    note = (InFlight(0, frozenset(), publishing=True), InFlight(1, frozenset({2})))
    decisions.died(number, GONE, note)
    assert "died with 1-2.jpg in hand; unit 1 is done again" in caplog.text
    assert "unit 0 failed and is done again: worker w0 was lost" in caplog.text
    number, task = only(decisions)
    assert (task.unit, task.serial, task.poisoned) == (0, False, {})
    decisions.wants_more(number, 0)
    assert decisions.orders().give == [], "a unit that is done item by item shares its worker with no other"
    decisions.finished(number, 0)
    ((_, task),) = decisions.orders().give
    assert (task.unit, task.serial, task.poisoned) == (1, True, {})
    decisions.wants_more(number, 1)
    assert decisions.orders().give == []


def test_only_what_hangs_is_blamed_for_a_worker_that_ends_itself() -> None:
    decisions, number = two_units()
    decisions.died(number, GONE, (InFlight(0, frozenset({3})), InFlight(1, frozenset({0}), overdue=0)))
    number, task = only(decisions)
    assert (task.unit, task.serial, task.poisoned) == (0, False, {})
    decisions.finished(number, 0)
    ((_, task),) = decisions.orders().give
    assert (task.unit, task.serial, list(task.poisoned)) == (1, False, [0])


def test_an_error_is_charged_to_its_own_unit() -> None:
    decisions, number = two_units()
    decisions.failed(number, StorageFailed("unit 0: cannot write"), 0)
    assert list(decisions.tasks_of(number)) == [1]
    decisions.wants_more(number, 1)
    ((_, task),) = decisions.orders().give
    assert task.unit == 0


# Pre-emption


def test_a_unit_that_a_leaving_worker_drops_is_done_again_by_another(caplog: pytest.LogCaptureFixture) -> None:
    decisions, number = two_units()
    decisions.leave(number)
    (heir,) = decisions.orders().start
    decisions.failed(number, UnitDropped("unit 1: dropped"), 1)
    assert decisions.orders().stop == [], "it still publishes"
    decisions.finished(number, 0)
    assert decisions.orders().stop == [number]
    decisions.started(heir, "heir")
    ((who, task),) = decisions.orders().give
    assert (who, task.unit, task.serial) == (heir, 1, False)
    assert "failed" not in caplog.text, "nobody is to blame"


def test_a_worker_that_drops_a_unit_by_itself_is_leaving() -> None:
    """Its machine told it to end; nobody told the pool."""
    decisions = pool(units=2)
    number, _ = only(decisions)
    decisions.failed(number, UnitDropped("unit 0: dropped"), 0)
    orders = decisions.orders()
    assert (orders.stop, len(orders.start), orders.give) == ([number], 1, [])


def test_a_pool_that_ends_gives_nothing_and_waits_for_what_is_in_hand() -> None:
    decisions, number = two_units(units=9)
    decisions.drain()
    assert not decisions.finished_all and decisions.units_in_hand == 2
    decisions.wants_more(number, 1)
    decisions.finished(number, 0)
    assert decisions.orders() == Orders([], [], [], [])
    decisions.failed(number, UnitDropped("unit 1: dropped"), 1)
    assert decisions.orders() == Orders([], [], [], [number])
    assert decisions.finished_all


def test_the_pool_grows_with_its_cluster() -> None:
    decisions = pool(units=10, size=1)
    begin(decisions)
    decisions.size = 4
    assert len(decisions.orders().start) == 3


def test_a_smaller_pool_replaces_nobody_and_stops_nobody() -> None:
    decisions = pool(units=10, size=3)
    busy = begin(decisions)
    decisions.size = 2
    first, second, third = busy
    decisions.died(first, GONE, None)
    assert decisions.orders().start == [], "two are left, as there should be"
    decisions.died(second, GONE, None)
    assert len(decisions.orders().start) == 1
    decisions.size = 0
    decisions.finished(third, busy[third].unit)
    assert [number for number, _ in decisions.orders().give] == [third], "who lives works on"
