"""Lines for people, without credentials and control codes: results on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO

from trackmill.pipeline.storage.credentials import scrub


def say(line: str) -> None:
    """A line of the result or of progress, at once."""
    _write(line, sys.stdout)


def note(line: str) -> None:
    """Something that people should know but that is no result."""
    _write(f"note: {line}", sys.stderr)


def warn(line: str) -> None:
    """Something that is not as it should be, though the job goes on."""
    _write(f"warning: {line}", sys.stderr)


def complain(line: str) -> None:
    """Why the job ends."""
    _write(f"error: {line}", sys.stderr)


def clean(text: str, limit: int = 4000) -> str:
    """Text that may hold anything, such as names inside a file, as one line: no credentials, no control codes."""
    line = " ".join(scrub(text).split())
    line = "".join(char if char.isprintable() else "?" for char in line)
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def write_any_text() -> None:
    """Let a stream that knows few characters, such as an ASCII terminal, get `\\xe9` for what it lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def discard_stdout() -> None:
    """Send what is still to be printed nowhere: the reader of a pipe, such as `head`, has seen enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Within, messages of loggers (ours, and others' warnings) and Python's warnings are plain scrubbed lines."""
    handler = _StderrHandler()
    root, ours = logging.getLogger(), logging.getLogger("trackmill")
    level, show_warning = ours.level, warnings.showwarning
    root.addHandler(handler)
    ours.setLevel(logging.INFO)
    warnings.showwarning = _show_warning
    try:
        yield
    finally:
        root.removeHandler(handler)
        ours.setLevel(level)
        warnings.showwarning = show_warning


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Python's warnings as one line, without the place in the code."""
    warn(clean(str(message), 1000))


class _StderrHandler(logging.Handler):
    """To whatever `sys.stderr` is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        print(_without_codes(scrub(self.format(record))), file=sys.stderr, flush=True)


def _without_codes(text: str) -> str:
    """Without what moves a terminal's cursor or colours it, as names of files may; lines stay lines."""
    return "".join(char if char.isprintable() or char in "\n\t" else "?" for char in text)


def _write(line: str, stream: TextIO) -> None:
    try:
        print(_without_codes(scrub(line)), file=stream, flush=True)
    except BrokenPipeError:
        if stream is not sys.stdout:
            raise
        discard_stdout()  # the work goes on, and its exit code stays true
