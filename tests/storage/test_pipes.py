"""Named pipes in place of files: what comes out of them is read, and nobody waits without end for what does not."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from trackmill.pipeline.storage import pipes
from trackmill.pipeline.storage.files import open_for_seeking, read_bytes
from trackmill.schemas.errors import InputError


def test_a_pipe_that_nobody_writes_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "WAIT_S", 0.1)
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(InputError, match=r"config\.json: is no file but a pipe, into which nobody has written"):
        read_bytes(str(tmp_path / "config.json"))
    with pytest.raises(InputError, match="is no file but a pipe"):
        open_for_seeking(str(tmp_path / "config.json"))


def test_what_a_pipe_says_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"a.jpg\n" * 50_000,))
    writer.start()
    assert read_bytes(str(path)) == b"a.jpg\n" * 50_000
    writer.join()


def test_a_pipe_that_is_handed_over_may_take_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "WAIT_S", 0.0)
    reading, writing = os.pipe()

    def say() -> None:
        os.write(writing, b"said")
        os.close(writing)

    timer = threading.Timer(0.3, say)
    timer.start()
    assert read_bytes(f"/dev/fd/{reading}", max_bytes=100) == b"said"
    os.close(reading)
    timer.join()


def test_a_link_that_leads_back_to_itself_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").symlink_to("a.json")
    with pytest.raises(FileNotFoundError, match=r"a\.json: a link that leads back to itself"):
        read_bytes(str(tmp_path / "a.json"))
