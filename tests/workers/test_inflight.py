"""The in-flight note: what a worker had in its hands, told by a file that outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from trackmill.pipeline.workers.inflight import InFlight, InFlightNote, peek_note, read_note


def hand(unit: int, *positions: int, overdue: int | None = None, publishing: bool = False) -> InFlight:
    return InFlight(unit, frozenset(positions), overdue, publishing)


def test_a_note_tells_what_is_in_hand() -> None:
    note = InFlightNote()
    assert peek_note(note.path) == (), "nothing is in hand yet"
    note.take(7, 0)
    assert peek_note(note.path) == (hand(7, 0),)
    note.put(7, 0)
    note.take(7, 0)
    note.take(7, 1)
    assert peek_note(note.path) == (hand(7, 0, 1),), "one is read ahead of the one worked on"
    note.put(7, 0)
    assert peek_note(note.path) == (hand(7, 1),)
    for position in range(2, 17):
        note.take(7, position)
    assert peek_note(note.path) == (hand(7, *range(1, 17)),), "sixteen at once"
    note.end(7)
    assert peek_note(note.path) == ()
    note.remove()
    assert not os.path.exists(note.path)
    note.take(7, 0)  # a thread that outlives the worker writes nowhere


def test_a_note_tells_two_units_apart() -> None:
    note = InFlightNote()
    note.take(7, 3)
    note.take(8, 0)
    assert peek_note(note.path) == (hand(7, 3), hand(8, 0)), "the last item is written, the first of the next is read"
    note.put(7, 3)
    note.publish(7)
    assert peek_note(note.path) == (hand(7, publishing=True), hand(8, 0))
    note.end(7)
    assert peek_note(note.path) == (hand(8, 0),)
    note.remove()


def test_a_note_says_which_item_takes_too_long() -> None:
    note = InFlightNote()
    note.take(6, 1)
    note.take(7, 0)
    note.take(7, 1)
    note.blame(7, 1)
    assert read_note(note.path) == (hand(6, 1), hand(7, 0, 1, overdue=1))


def test_a_note_outlives_its_writer_and_is_read_once(tmp_path: Path) -> None:
    code = (
        "import time; from trackmill.pipeline.workers.inflight import InFlightNote; n = InFlightNote();"
        "n.take(3, 5); print(n.path, flush=True); time.sleep(600)"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert writer.stdout is not None
    path = writer.stdout.readline().strip()
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait(timeout=60)
    assert str(writer.pid) in Path(path).name
    assert read_note(path) == (hand(3, 5),)
    assert read_note(path) == ()


def test_no_note_and_a_broken_note_are_nothing(tmp_path: Path) -> None:
    assert read_note(str(tmp_path / "gone")) == ()
    (tmp_path / "short").write_bytes(b"xy")
    assert read_note(str(tmp_path / "short")) == ()
