"""The status of a miner, read by one thread while others write it."""

from __future__ import annotations

import threading

from trackmill.pipeline.workers.status import LiveStatus
from trackmill.pipeline.workers.task import Counts


def test_counts_and_stages() -> None:
    live = LiveStatus()
    live.begin(3)
    with live.stage("reading", "a.jpg"):
        live.item_done(3, 4, quarantined=False)
        live.item_done(3, 1, quarantined=True)
        status = live.read()
        assert (status.unit, status.stage, status.source_id) == (3, "reading", "a.jpg")
        assert (status.items_done, status.frames_done, status.quarantined) == (2, 5, 1)
    with live.stage("publishing"):
        assert live.read().source_id == "", "a stage of the whole unit names no item"
    assert status.stage == "reading", "what was read does not change any more"
    live.end(3)
    assert live.read().items_done == 2, "until another one begins"
    live.begin(4)
    assert (live.read().items_done, live.read().stage, live.read().publishing) == (0, "idle", {})


def test_of_several_stages_the_oldest_is_told() -> None:
    """An item hangs at the model, while others are read and written."""
    live = LiveStatus()
    with live.stage("proposing", "a.jpg"):
        with live.stage("reading", "b.jpg"):
            assert live.read().stage == "proposing"
        assert (live.read().stage, live.read().source_id) == ("proposing", "a.jpg")


def test_a_unit_that_is_published_counts_beside_the_next_one() -> None:
    live = LiveStatus()
    live.begin(3)
    live.item_done(3, 2, quarantined=False)
    live.begin(4)
    live.item_done(3, 2, quarantined=True)  # the last item of the unit before is written now
    live.item_done(4, 5, quarantined=False)
    status = live.read()
    assert (status.unit, status.items_done, status.publishing) == (4, 1, {3: Counts(2, 4, 1)})
    assert status.counts() == Counts(3, 9, 1)
    own = status.only({4})
    assert own is not None and own.counts() == Counts(1, 5, 0)
    other = status.only({3})
    assert other is not None and other.counts() == Counts(2, 4, 1)
    assert status.only({9}) is None
    live.end(3)
    live.begin(5)
    assert live.read().publishing == {4: Counts(1, 5, 0)}


def test_no_reader_sees_half_a_change() -> None:
    live, stop = LiveStatus(), threading.Event()
    mixed: list[tuple[str, str]] = []

    def look() -> None:
        while not stop.is_set():
            status = live.read()
            if status.stage != "idle" and status.stage != status.source_id:
                mixed.append((status.stage, status.source_id))

    def work(name: str) -> None:
        for _ in range(2000):
            with live.stage(name, name):
                live.item_done(1, 2, quarantined=True)

    live.begin(1)
    reader = threading.Thread(target=look)
    writers = [threading.Thread(target=work, args=(name,)) for name in ("a", "b", "c")]
    reader.start()
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    stop.set()
    reader.join()
    assert not mixed
    status = live.read()
    assert (status.items_done, status.frames_done, status.quarantined) == (6000, 12000, 6000)
