"""One writer for one output: the second is refused by name, a dead owner's lock ends, a lost one is noticed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import orjson
import pytest

from tests.s3_server import s3_server
from trackmill.pipeline.storage import create, output_lock
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.output_lock import NAME, LockLost, OutputLocked, locked
from trackmill.pipeline.storage.processes import is_alive, machine, started_at
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.schemas.errors import InputError, StorageError

ROOT = Path(__file__).resolve().parents[2]
_HOLDER = """
import sys, time
from trackmill.pipeline.storage.output_lock import locked
with locked(sys.argv[1], "mine"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds `tmp_path / "out"`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats that a test can wait for."""
    monkeypatch.setattr(output_lock, "BEAT_S", 0.1)
    monkeypatch.setattr(output_lock, "EXPIRES_S", 1.5)
    monkeypatch.setattr(create, "SETTLE_S", 0.05)


def _foreign(**changes: object) -> bytes:
    """The lock of a process on another machine."""
    document = {
        "job": "train",
        "host": "node-7",
        "pid": 41,
        "machine": "node-7-4026531836",
        "started": "",
        "since": "2026-11-29 10:00:00",
        "token": "feed",
        "beats": 3,
    }
    return orjson.dumps({**document, **changes})


def test_the_second_process_is_told_who_holds_the_output(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with (
        pytest.raises(OutputLocked, match=rf"out is being written to .*job mine, process {holder.pid} on "),
        locked(str(tmp_path / "out"), "train"),
    ):
        raise AssertionError("two processes lock one output")
    assert orjson.loads((tmp_path / "out" / NAME).read_bytes())["pid"] == holder.pid


def test_the_hold_of_a_killed_process_of_this_machine_ends_at_once(
    tmp_path: Path, holder: subprocess.Popen[str], caplog: pytest.LogCaptureFixture
) -> None:
    holder.kill()
    holder.wait()
    with locked(str(tmp_path / "out"), "mine"):
        assert orjson.loads((tmp_path / "out" / NAME).read_bytes())["pid"] == os.getpid()
    assert f"its owner is dead (job mine, process {holder.pid} on" in caplog.text
    assert not (tmp_path / "out" / NAME).exists()


def test_a_number_that_another_process_has_by_now_is_not_its_owner(tmp_path: Path) -> None:
    boot = started_at(os.getpid()).partition("-")[0]
    ours = _foreign(machine=machine(), pid=os.getpid(), started=f"{boot}-12345")
    (tmp_path / NAME).write_bytes(ours)
    with locked(str(tmp_path), "mine"):
        pass


def test_an_owner_elsewhere_that_beats_is_alive(tmp_path: Path, quick: None) -> None:
    (tmp_path / NAME).write_bytes(_foreign())
    done = threading.Event()

    def beat() -> None:
        beats = 3
        while not done.wait(0.1):
            beats += 1
            publish_bytes(str(tmp_path / NAME), _foreign(beats=beats))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(OutputLocked, match="process 41 on node-7"), locked(str(tmp_path), "mine"):
            pass
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("document", [_foreign(), b"", b"{", b'{"pid": true}'])
def test_an_owner_elsewhere_that_does_not_beat_is_dead(tmp_path: Path, quick: None, document: bytes) -> None:
    (tmp_path / NAME).write_bytes(document)
    with locked(str(tmp_path), "mine") as lock:
        lock.check()
    assert not (tmp_path / NAME).exists()


def test_who_has_lost_its_output_stops(tmp_path: Path, quick: None) -> None:
    noticed = threading.Event()
    lost: list[LockLost] = []

    def note(error: LockLost) -> None:
        lost.append(error)
        noticed.set()

    with locked(str(tmp_path), "mine", on_lost=note) as lock:
        publish_bytes(str(tmp_path / NAME), _foreign())
        assert noticed.wait(60)
        with pytest.raises(LockLost, match=r"job train, process 41 on node-7.* has taken the output over"):
            lock.check()
    assert len(lost) == 1
    assert (tmp_path / NAME).read_bytes() == _foreign(), "the new owner's lock is not ours to remove"


def test_an_output_on_s3_is_held_too(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server() as (host, port):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        fsspec.filesystem("s3").mkdir("bucket")
        with locked("s3://bucket/held", "mine"):
            assert orjson.loads(read_bytes(f"s3://bucket/held/{NAME}"))["job"] == "mine"
            with pytest.raises(OutputLocked, match="job mine"), locked("s3://bucket/held", "train"):
                pass


def test_a_job_that_writes_nothing_leaves_no_folder(tmp_path: Path) -> None:
    with locked(str(tmp_path / "a" / "b"), "mine"):
        assert (tmp_path / "a" / "b" / NAME).exists()
    assert not (tmp_path / "a").exists()
    with locked(str(tmp_path / "a" / "b"), "mine"):
        (tmp_path / "a" / "b" / "shard.tar").touch()
    assert (tmp_path / "a" / "b" / "shard.tar").exists()


def test_a_disk_without_room_for_a_hold_leaves_none_that_the_next_process_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with (
            pytest.raises(StorageError, match=r"cannot be written to \(No space left"),
            locked(f"{tmp_path}/a/b", "m"),
        ):
            pass
    assert list(tmp_path.iterdir()) == []
    with locked(f"{tmp_path}/a/b", "m"):
        pass


def test_an_output_that_is_a_file_or_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match="file is a file, but the output is a folder"),
        locked(f"{tmp_path}/file", "m"),
    ):
        pass
    with pytest.raises(StorageError, match="/proc/y: the output cannot be written to"), locked("/proc/y", "mine"):
        pass


def test_processes_are_told_apart_by_when_they_began() -> None:
    assert is_alive(os.getpid(), started_at(os.getpid()))
    assert not is_alive(os.getpid(), "0-1")
    assert started_at(2**30) == ""
    assert not is_alive(2**30)


def test_a_process_that_nobody_has_collected_is_dead() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    started = started_at(ended.pid)
    try:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and its entry stays
        assert not is_alive(ended.pid, started) and not is_alive(ended.pid)
    finally:
        ended.wait()
