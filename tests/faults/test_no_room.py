"""A disk, or shared memory, without room: named, nothing half written stays, and once there is room it goes on."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from tests.make_dataset import FINGERPRINT, make_item, make_media, write_samples
from tests.make_media import make_jpeg
from tests.runs import ROOT
from tests.tracking.make_tracking import source_frame, tracked_objects
from trackmill.pipeline.console.disk_space import free_bytes, too_little_disk_space, too_little_shared_memory
from trackmill.pipeline.loader.cache import ShardCache
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.receipts import write_receipt
from trackmill.pipeline.storage.documents import publish_document
from trackmill.pipeline.storage.fetched import fetch_weights
from trackmill.pipeline.storage.scratch import naming
from trackmill.pipeline.tracking.video_writer import VideoWriter
from trackmill.pipeline.tracking.writers import CocoWriter, MotWriter, ParquetWriter, TrackWriter
from trackmill.schemas.receipt import ShardInfo

Write = Callable[[Path], object]


def shard(folder: Path) -> None:
    write_samples(Layout(str(folder)), 0, [(make_item("images", "pic"), make_media(0, 1, 48, 64), 0)])


def receipt(folder: Path) -> None:
    write_receipt(Layout(str(folder)), 0, [], [], FINGERPRINT)


def document(folder: Path) -> None:
    publish_document(str(folder / "document.json"), {"said": "x" * 5000})


def tracks(kind: Callable[[str], TrackWriter]) -> Write:
    def write(folder: Path) -> None:
        writer = kind(str(folder / "tracks.out"))
        try:
            with naming(writer.url):  # as `track_video` does
                for index in range(150):
                    boxes = np.random.default_rng(index).uniform(0, 90, (6, 4)).cumsum(1)
                    writer.write(source_frame(index), tracked_objects(boxes.astype(np.float32), list(range(6))))
            writer.finish()
        except BaseException:
            writer.abandon()
            raise

    return write


def cached(folder: Path) -> None:
    data = bytes(5000)
    fsspec.filesystem("memory").pipe("/no-room/a.tar", data)
    info = ShardInfo(name="a.tar", num_bytes=len(data), sha256="", num_samples=1)
    os.close(ShardCache(str(folder), 10_000, 5000).open("memory://no-room/a.tar", info))


def weights(folder: Path) -> None:
    fsspec.filesystem("memory").pipe("/no-room/w.pth", bytes(5000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKMILL_CACHE", str(folder))
        fetch_weights("memory://no-room/w.pth")


WRITES: dict[str, Write] = {
    "shard": shard,
    "receipt": receipt,
    "document": document,
    "tracks as text": tracks(lambda url: MotWriter(url, [1])),
    "tracks as Parquet": tracks(lambda url: ParquetWriter(url, ["a"], [1])),
    "tracks as JSON": tracks(lambda url: CocoWriter(url, "video", ["a"], [1])),
    "tracks as video": tracks(lambda url: VideoWriter(url, 25.0)),
    "cached shard": cached,
    "fetched weights": weights,
}


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("what", WRITES)
def test_an_error_at_the_last_moment_leaves_nothing_and_the_next_try_succeeds(
    what: str, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Network file systems say that they are full when a file is flushed or closed, not when it is written."""
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OSError, match=r"[Nn]o space left") as caught:
            WRITES[what](tmp_path)
    assert str(tmp_path) in str(caught.value) or "no-room" in str(caught.value) or call == "replace"
    # What arrived of weights stays: the next try goes on from there.
    kept = (".lock", ".part") if what == "fetched weights" else ("lock",)
    assert [str(path) for path in tmp_path.rglob("*") if path.is_file() and not path.name.endswith(kept)] == []
    WRITES[what](tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.endswith(kept)]


_TINY = """
import os, sys
from pathlib import Path
from tests.faults.tiny_mount import mount_tiny
folder = Path(sys.argv[1])
mount_tiny(str(folder), "4m")  # first: a process with threads cannot
from tests.faults.test_no_room import WRITES, leftovers
for what, write in WRITES.items():
    for free in (0, 2):
        room = os.statvfs(folder).f_bavail - free
        (folder / "filler").write_bytes(bytes(room * os.statvfs(folder).f_frsize))
        try:
            write(folder)
        except OSError as error:
            said = str(error)
            assert "No space left" in said and (str(folder) in said or "no-room" in said), (what, free, said)
        except BaseException as error:
            raise AssertionError(f"{what}, {free} pages free") from error
        else:
            assert free, what  # not even the first page
        (folder / "filler").unlink()
        assert not leftovers(folder), (what, free, leftovers(folder))
    write(folder)
print("done")
"""


def leftovers(folder: Path) -> list[str]:
    """Files that are not finished; what arrived of weights is meant to stay, the next try goes on from there."""
    names = [path.name for path in folder.rglob("*") if path.is_file()]
    return [name for name in names if name.endswith(".part") and "w.pth" not in name]


def in_child(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT, check=False)
    if "mount_tiny" in done.stderr and "PermissionError" in done.stderr:
        pytest.skip("this machine lets nobody mount a tmpfs")
    return done


def test_a_disk_that_is_full_to_the_last_page(tmp_path: Path) -> None:
    done = in_child(_TINY, str(tmp_path))
    assert done.stdout == "done\n", done.stderr[-3000:]


_MINING = """
import contextlib, logging, os, sys, threading
from pathlib import Path
from tests.faults.tiny_mount import mount_tiny
folder, pictures = Path(sys.argv[1]), sys.argv[2]
mount_tiny(str(folder), "8m")
from trackmill.jobs import mine_proposals
from trackmill.pipeline.mining.progress import MiningProgress
from trackmill.pipeline.workers import output_pause
output_pause.FIRST_PAUSE_S = 0.5
done, told = MiningProgress.unit_done, []

def fill_after_the_first(progress, result):
    done(progress, result)
    if not (folder / "filler").exists() and not told:
        with contextlib.suppress(OSError), open(folder / "filler", "wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))

class MakeRoom(logging.Handler):
    def emit(self, record):
        if "tries again in" in record.getMessage():
            told.append(record.getMessage())
            threading.Timer(1.0, (folder / "filler").unlink, (True,)).start()

MiningProgress.unit_done = fill_after_the_first
logging.getLogger("trackmill").addHandler(MakeRoom())
words = ["--input", pictures, "--output", str(folder / "out"), "--executor", "inline"]
code = mine_proposals.main([*words, "--set", "shards.unit_frames=1", "--set", "run.isolate=false"])
from tests.runs import statuses
print(code, set(statuses(folder / "out").values()), *told)
"""


def test_mining_waits_for_room_and_goes_on(tmp_path: Path) -> None:
    """A disk that is full for some seconds ends no run, and nothing is quarantined for it."""
    for number in range(6):
        make_jpeg(tmp_path / "in" / f"{number}.jpg", 60, 80, seed=number)
    (tmp_path / "disk").mkdir()
    done = in_child(_MINING, str(tmp_path / "disk"), str(tmp_path / "in"))
    assert "0 {'ok'} " in done.stdout, done.stdout + done.stderr[-3000:]
    assert "no space is left on its disk; tries again in" in done.stdout
    assert "done: 6 items (6 ok); 6 units done now, 6 in all" in done.stdout


_SHARED = """
from tests.faults.tiny_mount import mount_tiny
mount_tiny("/dev/shm", "1m")
import os, torch
from trackmill.pipeline.loader.packing import SharedMemoryFull, pack, unpack
for _ in range(3):
    try:
        pack([torch.zeros(1_000_000)])
    except SharedMemoryFull as error:
        print(error)
    assert os.listdir("/dev/shm") == []
assert unpack(pack([torch.ones(100_000)]))[0].sum() == 100_000
"""


def test_shared_memory_that_is_full_kills_no_worker_and_is_given_back() -> None:
    """A write into memory that the kernel cannot provide ends a process by SIGBUS."""
    done = in_child(_SHARED)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("/dev/shm is full: a loader worker passes on 4.0 MB") == 3


def test_what_will_not_fit_is_said_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_bytes("s3://bucket/out") is None and too_little_disk_space("s3://bucket/out", 1 << 60, "all") == ""
    assert (free_bytes(str(tmp_path / "not/there/yet")) or 0) > 0
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(64 << 20, 0, 2_000_000))
    said = too_little_disk_space(str(tmp_path / "out"), 3_000_000, "a checkpoint")
    assert said == f"{tmp_path}/out: a checkpoint takes about 3.0 MB, and 2.0 MB are free on its disk"
    assert too_little_disk_space(str(tmp_path), 2_000_000, "a checkpoint") == ""
    assert too_little_shared_memory().startswith("/dev/shm has 67.1 MB in all") and not too_little_shared_memory(1000)
