"""The status of a miner, read by one thread while others write it."""

from __future__ import annotations

import threading

from trackmill.pipeline.workers.status import LiveStatus


def test_counts_and_stages() -> None:
    live = LiveStatus()
    live.begin(3)
    live.enter("reading", "a.jpg")
    live.item_done(4, quarantined=False)
    live.item_done(1, quarantined=True)
    status = live.read()
    assert (status.unit, status.stage, status.source_id) == (3, "reading", "a.jpg")
    assert (status.items_done, status.frames_done, status.quarantined) == (2, 5, 1)
    live.enter("publishing")
    assert live.read().source_id == "", "a stage of the whole unit names no item"
    assert status.stage == "reading", "what was read does not change any more"
    live.begin(4)
    assert (live.read().items_done, live.read().stage) == (0, "idle")


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
            live.enter(name, name)
            live.item_done(2, quarantined=True)

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
