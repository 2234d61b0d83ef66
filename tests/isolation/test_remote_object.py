"""One object in a child process: what ends a call ends nothing else."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.isolation.hostile import Reader
from trackmill.pipeline.isolation import process, remote_object, wire
from trackmill.pipeline.isolation.limits import Limits, MemoryLimit, ReaderDied, TimeLimit
from trackmill.pipeline.isolation.process import CallFailed, Child, ChildFailed, give_back
from trackmill.pipeline.isolation.remote_object import RemoteObject

LIMITS = Limits(memory_bytes=300 << 20, seconds=60)


@pytest.fixture(autouse=True)
def nobody_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that other tests of this process have left idle are nobody's here: only four are kept."""
    monkeypatch.setattr(process, "_idle", [])


@pytest.fixture
def remote() -> Iterator[RemoteObject]:
    made = RemoteObject(Reader, (), LIMITS)
    yield made
    made.close()


def test_it_works_elsewhere_and_remembers(
    remote: RemoteObject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKMILL_TESTED", "yes")
    monkeypatch.chdir(tmp_path)
    pid, folder, value = remote.call("where")
    assert pid != os.getpid()
    assert (folder, value) == (str(tmp_path), "yes"), "as in the parent at this time"
    assert remote.call("read", "a") == "A"
    assert remote.call("count") == 1


def test_a_child_that_is_killed_while_it_starts_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Child] = []
    waits = Child.wait_until_ready

    def wait_after_a_kill(child: Child) -> None:
        started.append(child)
        if len(started) < 3:
            child.interrupt()
        waits(child)

    monkeypatch.setattr(Child, "wait_until_ready", wait_after_a_kill)
    for module in (process, remote_object):
        monkeypatch.setattr(module, "borrow", Child)  # an idle one would be ready before it is killed
    made = RemoteObject(Reader, (), LIMITS)
    made.start()
    assert made.call("read", "a") == "A"
    made.close()
    with pytest.raises(ChildFailed, match=r"was ended \(SIGKILL\).* while it started"):
        monkeypatch.setattr(Child, "wait_until_ready", lambda child: (child.interrupt(), waits(child))[1])
        RemoteObject(Reader, (), LIMITS).call("read", "a")


def test_a_child_that_was_killed_while_it_was_idle_is_replaced(remote: RemoteObject) -> None:
    child = Child()
    give_back(child)
    os.kill(child.pid, signal.SIGKILL)
    remote.start()
    assert remote.call("read", "a") == "A"


def test_a_child_has_its_caps_before_it_reads(remote: RemoteObject) -> None:
    data, address_space = remote.call("caps")
    assert LIMITS.memory_bytes < data < LIMITS.memory_bytes + (1 << 30)
    assert LIMITS.memory_bytes < address_space < LIMITS.memory_bytes + (16 << 30)


def test_arrays_come_whole_and_may_be_written_to(remote: RemoteObject) -> None:
    pixels = remote.call("pixels", 20)
    assert pixels.shape == (20, 1024, 1024) and (pixels == 7).all()
    pixels[0] = 1


@pytest.mark.parametrize(
    ("what", "error", "text"),
    [
        ("eat", MemoryLimit, "more memory than `run.item_memory_bytes` = 314572800"),
        ("eat in small pieces", MemoryLimit, "more memory than `run.item_memory_bytes` = 314572800"),
        ("crash", ReaderDied, r"the process that read it crashed \(SIGABRT\)"),
        ("read address 0", ReaderDied, r"the process that read it crashed \(SIGSEGV\)"),
        ("exit", ReaderDied, "the process that read it ended with code 3"),
        ("raise", CallFailed, r"KeyError: 'odd\\x1b\[2J\\nname'"),
        ("no pickle", CallFailed, "Can't|pickle"),
    ],
)
def test_what_a_call_can_do_wrong(remote: RemoteObject, what: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        remote.call("read", what)
    assert remote.call("read", "next") == "NEXT", "the next input is read as if nothing had happened"


@pytest.mark.parametrize("what", ["hang", "burn"])
def test_a_call_that_hangs_is_ended(what: str) -> None:
    remote = RemoteObject(Reader, (), Limits(seconds=0.5))
    with pytest.raises(TimeLimit, match=r"longer than `run.item_timeout_s` = 0.5;"):
        remote.call("read", what)
    assert remote.call("read", "next") == "NEXT"
    remote.close()


def test_who_stood_still_gives_the_other_side_its_whole_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(wire, "time", SimpleNamespace(monotonic=lambda: now[0]))

    class Link:
        """Nothing comes in the first wait, which takes as long as is said, and then in so many more."""

        def __init__(self, first: float, more: int) -> None:
            self.waits = [first, *[1.0] * more]

        def settimeout(self, seconds: float | None) -> None:
            pass

        def recv_into(self, room: memoryview) -> int:
            if self.waits:
                now[0] += self.waits.pop(0)
                raise TimeoutError
            room[:] = struct.pack("<Q", 1 << 30)  # more parts than a message may have
            return len(room)

    for first, more in ((1.0, 3), (600.0, 3)):
        with pytest.raises(wire.TooLarge):
            wire.receive(Link(first, more), seconds=5)
    with pytest.raises(TimeoutError):
        wire.receive(Link(600.0, 4), seconds=5)


def test_an_answer_that_is_larger_than_its_call_may_be_is_not_taken(remote: RemoteObject) -> None:
    # No reader that keeps to its limit can send this; one that was taken over could try.
    remote.start()
    assert remote._child is not None
    remote._ready_child()
    remote._child._limits = Limits(memory_bytes=1)
    with pytest.raises(MemoryLimit):
        remote.call("pixels", 257)


def test_an_object_that_cannot_be_built() -> None:
    with pytest.raises(ChildFailed, match="could not start: ValueError: no such source"):
        RemoteObject(Reader, (True,), LIMITS).call("read", "a")


def test_what_a_decoder_says_in_c_reaches_no_terminal(remote: RemoteObject, capfd: pytest.CaptureFixture[str]) -> None:
    remote.call("say", "from Python \x1b[2J", "from C \x1b[2J")
    told = capfd.readouterr()
    assert told.out == "" and told.err == "from Python \\x1b[2J\n"


def test_a_child_that_was_started_before_speaks_where_standard_error_leads_now(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with capfd.disabled():
        before = RemoteObject(Reader, (), LIMITS)
        before.call("count")
        before.close()  # from here on it waits for another caller
    with_captured = RemoteObject(Reader, (), LIMITS)
    with_captured.call("say", "here", "")
    with_captured.close()
    assert capfd.readouterr().err == "here\n"


def test_a_child_is_used_again_without_what_it_held() -> None:
    first = RemoteObject(Reader, (), LIMITS)
    pid = first.call("where")[0]
    first.call("read", "a")
    first.close()
    second = RemoteObject(Reader, (), LIMITS)
    assert second.call("where")[0] == pid
    assert second.call("count") == 0
    second.close()
