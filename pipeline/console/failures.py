"""How a job that fails says so: one line, its exit code and, for a bug, a file with the whole traceback."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Sequence

import trackmill
from trackmill.pipeline.console.exit_codes import ExitCode, exit_code_of
from trackmill.pipeline.console.output import clean, complain
from trackmill.pipeline.storage.credentials import scrub


def report_failure(error: BaseException, job: str, words: Sequence[str], goes_on: str) -> ExitCode:
    """Say on stderr what ended a job.

    Args:
        error: what was raised.
        job: its name, such as `mine`.
        words: of the command line; they go into the log of a bug.
        goes_on: what becomes of the work that is done; "" where there is nothing to say.

    Returns:
        The exit code.
    """
    code = exit_code_of(error)
    ending = f"; {goes_on}" if goes_on else ""
    if code is ExitCode.STOPPED:
        print(f"interrupted{ending}", file=sys.stderr, flush=True)
    elif code is None:
        complain(
            f"{_named(error)}. This is a bug in Trackmill or in a library, not a mistake in the command; "
            f"traceback: {_log(error, job, words)}"
        )
        return ExitCode.FAILED
    elif code in (ExitCode.FAILED, ExitCode.STORAGE):
        complain(f"{clean(str(error)) or _named(error)}{ending}")
    else:
        complain(clean(str(error)) or _named(error))
    return code


def _named(error: BaseException) -> str:
    text = clean(str(error), 300)
    return f"{type(error).__name__}: {text}".rstrip(": ").rstrip(".")


def _log(error: BaseException, job: str, words: Sequence[str]) -> str:
    """Write the traceback to a file of its own; returns the file's path, or why there is none."""
    versions = f"trackmill {trackmill.__version__}, Python {platform.python_version()}, {platform.platform()}"
    command = " ".join(["trackmill", job, *words])
    text = scrub("\n".join([versions, command, "", *traceback.format_exception(error)]))
    try:
        descriptor, path = tempfile.mkstemp(prefix=f"trackmill-{job}-", suffix=".log")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
    except OSError:
        print(text, file=sys.stderr, flush=True)
        return "above, since no log file could be written"
    return path
