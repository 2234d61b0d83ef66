"""What a job's exit code says: one table for all jobs, and the code of every error that ends one."""

from __future__ import annotations

import errno
import os
import sys
from enum import IntEnum
from pathlib import Path
from types import TracebackType

from trackmill.schemas.errors import InputError, JobError, MissingPackage, StorageError

_STORAGE = "trackmill.pipeline.storage."
_PROGRAM = (*(Path(__file__).resolve().parents[2] / name for name in ("jobs", "models", "pipeline", "schemas")),)
"""Where our own files lie; one that is missing there was given by nobody."""
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError, FileExistsError)
_NO_MEMORY = ("can't allocate memory", "not enough memory")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.ESTALE}


class ExitCode(IntEnum):
    """How a job ended. The numbers never change: schedulers and scripts act on them."""

    FINE = 0
    """Everything that was asked for is there."""
    FAILED = 1
    """The work failed, a check found faults, or there is a bug; the same command may go on from where it stopped."""
    MISTAKE = 2
    """An option, a setting, a path or a file that was given cannot be used; nothing was begun."""
    INCOMPLETE = 3
    """The result is there, but parts of the input were bad and are missing from it."""
    STORAGE = 4
    """Files could not be read or written, also after several attempts."""
    HUNG = 75
    """Training made no step for `watchdog.timeout_s` and was ended; start it again."""
    STOPPED = 130
    """Ctrl-C, SIGTERM, SIGHUP or SIGUSR1; what is finished is kept."""


def exit_code_of(error: BaseException) -> ExitCode | None:
    """The code for an error that ends a job; None for a bug, in our code or in a library.

    Errors of the operating system count as storage, and as a mistake where a path does not exist, if they came out of
    the code that reads and writes for us or name a file of somebody's. A missing program or a missing file of our own
    do neither.
    """
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.STOPPED
    if isinstance(error, (InputError, MissingPackage)):
        return ExitCode.MISTAKE
    if isinstance(error, StorageError):
        return ExitCode.STORAGE
    if isinstance(error, JobError) or out_of_memory(error):
        return ExitCode.FAILED
    if not isinstance(error, OSError):
        return None
    if isinstance(error, _ABSENT):
        # Without a number it is not the operating system's: somebody wrote the text for people.
        return ExitCode.MISTAKE if error.errno is None or _of_somebodys_file(error) else None
    return ExitCode.STORAGE if error.errno in _NO_ROOM or _of_somebodys_file(error) else None


def out_of_memory(error: BaseException) -> bool:
    """Whether the machine's or the device's memory did not suffice; by name, since PyTorch may not be imported here."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, ImportError) and "failed to map segment" in str(error):
        return True  # of a library that is loaded
    # What PyTorch raises on a CPU has no class of its own.
    return type(error) is RuntimeError and any(said in str(error) for said in _NO_MEMORY)


def _of_somebodys_file(error: OSError) -> bool:
    """Whether the error came through the code that reads and writes everything, or names a file that is not ours."""
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None:
        if str(traceback.tb_frame.f_globals.get("__name__", "")).startswith(_STORAGE):
            return True
        traceback = traceback.tb_next
    if not isinstance(error.filename, str) or os.sep not in error.filename:
        return False
    path = Path(os.path.abspath(error.filename))
    return not any(path.is_relative_to(folder) for folder in (*_PROGRAM, Path(sys.prefix)))
