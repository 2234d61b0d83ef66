"""How a job that fails says so: one line, its exit code and, for a bug, a file with the whole traceback."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence

import trackmill
from trackmill.pipeline.console.blame import place_outside
from trackmill.pipeline.console.exit_codes import ExitCode, exit_code_of, out_of_memory
from trackmill.pipeline.console.output import clean, complain, warn
from trackmill.pipeline.storage.credentials import path_error, scrub
from trackmill.pipeline.storage.names import printable

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
    try:
        return _report(error, job, words, goes_on)
    except BaseException as second:  # no memory for the words, nobody who reads them, an error whose text fails, Ctrl-C
        stopped = isinstance(error, KeyboardInterrupt) or isinstance(second, KeyboardInterrupt)
        said = b"interrupted" if stopped else b"error: " + type(error).__name__.encode("ascii", "replace")
        with contextlib.suppress(OSError):
            os.write(2, said + b"\n")
        return ExitCode.STOPPED if stopped else ExitCode.FAILED


@contextlib.contextmanager
def failing_threads_are_told() -> Iterator[None]:
    """Within, what ends a thread, or fails where Python cannot raise it, is one line and not a traceback."""
    of_threads, unraisable = threading.excepthook, sys.unraisablehook

    def tell(error: BaseException | None, where: str) -> None:
        if error is not None and not isinstance(error, SystemExit):
            with contextlib.suppress(Exception):
                warn(f"{where} failed: {_named(error)}; traceback: {_log(error, 'thread', [])}")

    threading.excepthook = lambda each: tell(each.exc_value, f"thread {each.thread.name if each.thread else ''}")
    sys.unraisablehook = lambda each: tell(each.exc_value, "cleaning up")
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = of_threads, unraisable


def _report(error: BaseException, job: str, words: Sequence[str], goes_on: str) -> ExitCode:
    if isinstance(error, MemoryError):
        traceback.clear_frames(error.__traceback__)  # what they hold is what there was no room beside
    code = exit_code_of(error)
    goes_on = "" if goes_on and goes_on in _text(error) else goes_on
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


def _text(error: BaseException) -> str:
    """What an error says of itself; "" where that fails, too."""
    try:
        return str(error)
    except Exception:
        return ""


def _named(error: BaseException) -> str:
    """Class and text; of an error that carries the traceback of another process, the line that this one ends with."""
    text = _text(error).strip()
    if _TRACEBACK in text:
        return clean(text.rpartition("\n")[2], 300).rstrip(".")
    return f"{type(error).__name__}: {clean(text, 300)}".rstrip(": ").rstrip(".")


def _blame(error: BaseException) -> str:
    """Whose fault an unexpected error may be."""
    if place := place_outside("".join(traceback.format_exception(error))):
        return f"It was raised in {place}, code that is not Trackmill's"
    # Looked up and not imported: where nothing was imported from outside, nobody outside is to blame.
    outside = sys.modules.get("trackmill.models.outside")
    others = list(getattr(outside, "OUTSIDE", ()))
    if others:
        return f"This is a bug in Trackmill, in a library, or in what {' or '.join(others)} returned"
    return "This is a bug in Trackmill or in a library"


def _sentence(error: BaseException) -> str:
    """The error's text; what the operating system says of a path, as a sentence."""
    if out_of_memory(error):
        first = clean(_text(error).partition("\n")[0], 300)
        return ": ".join(filter(None, ["out of memory, do less at once (a smaller batch, fewer workers)", first]))
    if isinstance(error, OSError) and (said := path_error(error)):
        return clean(said)
    return clean(_text(error)) or _named(error)


def _log(error: BaseException, job: str, words: Sequence[str]) -> str:
    """Write the traceback to a file of its own; returns the file's path, or why there is none."""
    versions = f"trackmill {trackmill.__version__}, Python {platform.python_version()}, {platform.platform()}"
    command = " ".join(["trackmill", job, *words])
    text = printable(scrub("\n".join([versions, command, "", *traceback.format_exception(error)])), "\n\t")
    try:
        descriptor, path = tempfile.mkstemp(prefix=f"trackmill-{job}-", suffix=".log")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
    except OSError:
        print(text, file=sys.stderr, flush=True)
        return "above, since no log file could be written"
    return path
