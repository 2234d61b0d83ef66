"""A small disk of its own for a run: a tmpfs that only the run's processes see, and that can be made full.

A process that mounts it and sleeps keeps the mount namespace alive; others join it before they begin. From outside it
is looked at through `/proc/PID/root`. Where nobody may mount, there is no disk, and the harness says so.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

from tests.chaos.processes import MARK
from tests.runs import ROOT

_KEEP = """
import os, sys
from tests.faults.tiny_mount import mount_tiny
mount_tiny(sys.argv[1], sys.argv[2])
print("mounted", flush=True)
sys.stdin.read()
"""
_JOIN = Path(__file__).with_name("join_namespaces.py")


class NoDisk(Exception):
    """This machine lets nobody mount."""


class SmallDisk:
    """A tmpfs of `size` over `folder`, for the processes that are started through `words`.

    Raises:
        NoDisk: it cannot be mounted here.
    """

    def __init__(self, folder: Path, size: str, run: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._keeper = subprocess.Popen(
            [sys.executable, "-c", _KEEP, str(folder), size],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, MARK: run},
            cwd=ROOT,
        )
        assert self._keeper.stdout is not None
        if self._keeper.stdout.readline() != "mounted\n":
            self.end()
            raise NoDisk("nobody may mount a tmpfs here")
        self.seen = Path(f"/proc/{self._keeper.pid}/root") / folder.relative_to("/")
        """The disk as this process sees it."""

    @property
    def keeper(self) -> int:
        """Process that keeps it."""
        return self._keeper.pid

    @property
    def words(self) -> list[str]:
        """What a command begins with that is to see the disk."""
        return [sys.executable, "-I", "-S", str(_JOIN), str(self._keeper.pid)]

    def fill(self) -> int:
        """Leave no room at all; returns the bytes that this took."""
        with open(self.seen / "filler", "ab", buffering=0) as handle:
            for size in (1 << 20, 1 << 16, 4096):
                try:
                    while True:
                        handle.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
            return handle.tell()

    def free(self) -> None:
        """Give the room back."""
        (self.seen / "filler").unlink(missing_ok=True)

    def end(self) -> None:
        """Nobody keeps it any more; it is gone with the last process that uses it."""
        self._keeper.kill()
        for pipe in (self._keeper.stdin, self._keeper.stdout):
            if pipe is not None:
                pipe.close()
        self._keeper.wait()
