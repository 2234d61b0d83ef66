"""How a job that fails says so: one line, its exit code and, for a bug, a file with the whole traceback."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Sequence

import trackmill
from trackmill.pipeline.console.blame import place_outside
from trackmill.pipeline.console.exit_codes import ExitCode, exit_code_of, out_of_memory
from trackmill.pipeline.console.output import clean, complain
from trackmill.pipeline.storage.credentials import path_error, scrub

_TRACEBACK = "Traceback (most recent call last)"


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
    goes_on = "" if goes_on and goes_on in str(error) else goes_on
    ending = f"; {goes_on}" if goes_on else ""
    if code is ExitCode.STOPPED:
        print(f"interrupted{ending}", file=sys.stderr, flush=True)
    elif code is None:
        whose = _blame(error)
        complain(f"{_named(error)}. {whose}, not a mistake in the command; traceback: {_log(error, job, words)}")
        return ExitCode.FAILED
    elif code in (ExitCode.FAILED, ExitCode.STORAGE):
        complain(f"{_sentence(error)}{ending}")
    else:
        complain(_sentence(error))
    return code


def _named(error: BaseException) -> str:
    """Class and text; of an error that carries the traceback of another process, the line that this one ends with."""
    text = str(error).strip()
    if _TRACEBACK in text:
        return clean(text.rpartition("\n")[2], 300).rstrip(".")
    return f"{type(error).__name__}: {clean(text, 300)}".rstrip(": ").rstrip(".")


def _blame(error: BaseException) -> str:
    """Whose fault an unexpected error may be."""
    if place := place_outside("".join(traceback.format_exception(error))):
        return f"It was raised in {place}, code that is not Trackmill's"
    # Looked up and not imported: where nothing was imported from outside, nobody outside is to blame.
    registry = sys.modules.get("trackmill.models.registry")
    others = list(getattr(registry, "OUTSIDE", ()))
    if others:
        return f"This is a bug in Trackmill, in a library, or in what {' or '.join(others)} returned"
    return "This is a bug in Trackmill or in a library"


def _sentence(error: BaseException) -> str:
    """The error's text; what the operating system says of a path, as a sentence."""
    if out_of_memory(error):
        first = clean(str(error).partition("\n")[0], 300)
        return ": ".join(filter(None, ["out of memory, do less at once (a smaller batch, fewer workers)", first]))
    if isinstance(error, OSError) and (said := path_error(error)):
        return clean(said)
    return clean(str(error)) or _named(error)


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
