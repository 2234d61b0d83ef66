"""Files that are not finished yet: where they are built, and how those of dead processes are told and removed."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from trackmill.pipeline.storage.credentials import protocol_of, redact
from trackmill.pipeline.storage.processes import is_alive, machine, started_at
from trackmill.pipeline.storage.urls import filesystem, is_local
from trackmill.schemas.errors import InputError

_PREFIX = ".tmp-"
_NOTES_LIVE_S = 3600.0
"""What a dead miner had in hand (`trackmill.pipeline.workers.inflight`) is read after its death."""
NOTHING_STAYS = "what is written there is gone when this process ends; give a folder or a bucket"
"""Of `memory://`, for whoever takes a command's output."""
_LONGEST_NAME = 80
"""Characters of the target's name that are kept in that of its scratch file: together they must stay below 255."""


def check_writable(url: str) -> None:
    """Raise `InputError` for a place where nothing can ever be written: a web server."""
    if protocol_of(url) in ("http", "https"):
        raise InputError(f"{redact(url)}: cannot be written to, a web server only hands out; give a folder or a bucket")


def scratch_file(url: str) -> Path:
    """A new, empty file to build the contents of `url` in: beside it if local, else in `scratch_folder`.

    Raises:
        InputError: nothing can be written to `url`.
        OSError: no file can be made there.
    """
    check_writable(url)
    if is_local(url):
        path = scratch_path(filesystem(url)[1])
    else:
        path = scratch_path(str(scratch_folder() / url.rstrip("/").rpartition("/")[2]))
    path.touch()
    return path


def scratch_folder() -> Path:
    """This user's folder for scratch files inside the temporary folder of this machine; what the dead left is removed.

    Raises:
        OSError: it cannot be made.
    """
    folder = Path(tempfile.gettempdir()) / f"trackmill-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    sweep_scratch(str(folder), _NOTES_LIVE_S)
    return folder


def scratch_path(path: str) -> Path:
    """A name of its own beside `path`, in a folder that is made; it says whose it is."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    owner = f"{machine()}~{os.getpid()}~{started_at(os.getpid())}~{os.urandom(4).hex()}"
    return target.parent / f"{_PREFIX}{owner}-{target.name[-_LONGEST_NAME:]}.part"


def sweep_scratch(folder_url: str, unchanged_s: float = 0) -> int:
    """Remove what dead processes of this machine left unfinished in a local folder; returns how many files.

    What another machine or another container left stays: whether its process lives cannot be told from here.

    Args:
        folder_url: the folder.
        unchanged_s: leave what was changed in the last so many seconds.
    """
    if not is_local(folder_url):
        return 0
    removed = 0
    for path in Path(filesystem(folder_url)[1]).glob(f"{_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):
            # Without a wait no clock is asked: one that was set back would keep everything.
            rests = not unchanged_s or time.time() - path.stat().st_mtime >= unchanged_s
            if rests and _is_dead(path.name.removeprefix(_PREFIX)):
                path.unlink()
                removed += 1
    return removed


def _is_dead(owner: str) -> bool:
    where, *rest = owner.split("~")
    pid = rest[0] if rest else ""
    # Before there was a third part, the host alone said where.
    here, started = (machine(), rest[1]) if len(rest) > 2 else (socket.gethostname(), "")
    return where == here and pid.isdigit() and not is_alive(int(pid), started)


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Within, an error of the operating system that names no file names `path`: "no space left" needs a place."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None and type(error).__module__ == "builtins":
            error.filename = str(path)
        raise
