"""The in-flight note: what a worker had in its hands, told by a file that outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from trackmill.pipeline.workers.inflight import InFlight, InFlightNote, peek_note, read_note


def test_a_note_tells_what_is_in_hand() -> None:
    note = InFlightNote()
    assert peek_note(note.path) is None, "nothing is in hand yet"
    note.begin(7)
    note.take(0)
    assert peek_note(note.path) == InFlight(7, frozenset({0}))
    note.put(0)
    note.take(0)
    note.take(1)
    assert peek_note(note.path) == InFlight(7, frozenset({0, 1})), "one is read ahead of the one worked on"
    note.put(0)
    assert peek_note(note.path) == InFlight(7, frozenset({1}))
    for position in range(2, 9):
        note.take(position)
    assert peek_note(note.path) == InFlight(7, frozenset(range(1, 9))), "eight at once"
    note.begin(8)
    assert peek_note(note.path) is None, "another unit, other items"
    note.take(3)
    note.end()
    assert peek_note(note.path) is None
    note.remove()
    assert not os.path.exists(note.path)


def test_a_note_says_which_item_takes_too_long() -> None:
    note = InFlightNote()
    note.begin(7)
    note.take(0)
    note.take(1)
    note.blame(1)
    assert read_note(note.path) == InFlight(7, frozenset({0, 1}), overdue=1)


def test_a_note_outlives_its_writer_and_is_read_once(tmp_path: Path) -> None:
    code = (
        "import time; from trackmill.pipeline.workers.inflight import InFlightNote; n = InFlightNote();"
        "n.begin(3); n.take(5); print(n.path, flush=True); time.sleep(600)"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert writer.stdout is not None
    path = writer.stdout.readline().strip()
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait(timeout=60)
    assert str(writer.pid) in Path(path).name
    assert read_note(path) == InFlight(3, frozenset({5}))
    assert read_note(path) is None


def test_no_note_and_a_broken_note_are_nothing(tmp_path: Path) -> None:
    assert read_note(str(tmp_path / "gone")) is None
    (tmp_path / "short").write_bytes(b"xy")
    assert read_note(str(tmp_path / "short")) is None
