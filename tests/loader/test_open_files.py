"""A window may span more shards than a process may have files open."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.loader.examples import make_shards
from tests.runs import ROOT
from trackmill.pipeline.loader.open_files import OpenFiles, most_open_files
from trackmill.schemas.errors import StorageError

_CHILD = """
import os, resource, sys
import fsspec, numpy as np
resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))
from trackmill.pipeline.loader.catalog import read_catalog
from trackmill.pipeline.loader.open_files import most_open_files
from trackmill.pipeline.loader.settings import DataSettings
from trackmill.pipeline.loader.shard_files import ShardFiles
folder, cache = sys.argv[1:]
local = read_catalog(folder)
fs = fsspec.filesystem("memory")
fs.put(folder, "/many", recursive=True)
for catalog, settings in ((local, DataSettings()), (read_catalog("memory://many"), DataSettings(cache=cache))):
    files, most = ShardFiles(catalog, settings), 0
    for stream in range(2):
        files.need(stream, [np.arange(len(catalog))])
    for _ in range(2):
        for sample in np.random.default_rng(0).permutation(len(catalog)).tolist():
            assert len(files.piece(sample % 2, sample)) == catalog.sizes[sample]
            most = max(most, len(os.listdir("/proc/self/fd")))
    files.close()
    assert most <= 48 and most_open_files() == 12, most
print(len(local.shards), "shards")
"""


def test_more_shards_than_descriptors_are_read_in_place_and_through_the_cache(tmp_path: Path) -> None:
    make_shards(str(tmp_path / "data"), num_samples=120, per_shard=1)
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(tmp_path / "data"), str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.stdout == "120 shards\n", done.stderr[-2000:]


def test_the_longest_unused_is_closed_and_what_is_read_stays_open(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / str(number)).write_bytes(bytes([number] * 3))
    files = OpenFiles(2)
    for number in (0, 1, 0, 2):
        files.open(number, lambda: os.open(tmp_path / str(number), os.O_RDONLY))  # noqa: B023
        if number == 1:
            assert files.read(0, 1, 2) == b"\0"
    assert [files.read(number, 2, 1) for number in range(4)] == [b"\0\0", None, b"\2\2", None]
    files.close_all_but({2})
    assert 0 not in files and files.read(2, 9, 0) == b"\2\2\2"
    files.close_all_but(())
    assert 2 not in files


def test_where_others_took_all_descriptors_ours_make_room_and_then_it_is_said(tmp_path: Path) -> None:
    path, tries = tmp_path / "a", [0]
    path.write_bytes(b"abc")

    def full() -> int:
        tries[0] += 1
        if tries[0] < 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return os.open(path, os.O_RDONLY)

    files = OpenFiles(8)
    for number in range(6):
        files.open(number, lambda: os.open(path, os.O_RDONLY))
    files.open(9, full)
    assert 5 in files and 9 in files and 0 not in files
    files.close_all_but(())
    tries[0] = -1000
    with pytest.raises(StorageError, match=r"no file can be opened any more, .*ulimit -n"):
        files.open(1, full)
    assert 4 <= most_open_files() <= 256
