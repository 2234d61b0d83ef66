"""Lines for people, without credentials and control codes: results on stdout, everything else on stderr.

Whatever a job prints goes through a `PrintableStream`, which stands in place of both streams while it runs: also what
argparse, libraries and Python itself say. Code that rewrites a line or colours a table writes to the original stream,
see `raw_stream`, and cleans the texts itself.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, cast

from trackmill.pipeline.storage.credentials import scrub
from trackmill.pipeline.storage.names import printable
from trackmill.schemas.errors import StorageError


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


def clean(text: str, limit: int = 900) -> str:
    """Text that may hold anything, such as names inside a file, as one line: no credentials, no control codes.

    Of a line with more than `limit` characters the middle is left out: who is meant stands at its beginning, and what
    to do at its end.
    """
    line = printable(" ".join(scrub(text).split()))
    if len(line) <= limit:
        return line
    end = (limit - 3) // 3
    return f"{line[: limit - 3 - end]} … {line[len(line) - end :]}"


def write_any_text() -> None:
    """Let a stream that knows few characters, such as an ASCII terminal, get `\\xe9` for what it lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")


def open_standard_streams() -> None:
    """Give a process that was started without them (`>&- 2>&-`) streams that lead nowhere.

    The next file that it opens would stand in their place, and get what libraries print.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - as long as we live


def discard_stdout() -> None:
    """Send what is still to be printed nowhere: the reader of a pipe, such as `head`, has seen enough."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # it may be no file at all, or closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def flush_stdout() -> None:
    """Let what was printed go out now.

    Raises:
        BrokenPipeError: nobody reads it.
        StorageError: it goes to a file, which could not be written.
    """
    if sys.stdout is None or sys.stdout.closed:  # the process was started without one
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_stdout()
        raise StorageError(f"what is printed cannot be written: {error.strerror or error}") from error


class PrintableStream:
    """A text stream that gets printable characters and line breaks only, and no secrets; all else is the stream's own.

    Args:
        behind: where the text goes.
    """

    def __init__(self, behind: TextIO) -> None:
        self.behind = behind

    def write(self, text: str) -> int:
        """Write a text; unprintable characters are escaped, as in `\\x1b`."""
        self._write(printable(scrub(text.replace("\r\n", "\n")), "\n\t"))
        return len(text)

    def _write(self, text: str) -> None:
        try:
            self.behind.write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StorageError(f"what is printed cannot be written: {error.strerror or error}") from error

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.behind, name)


def raw_stream(stream: TextIO) -> TextIO:
    """The stream that takes control codes; who writes there cleans names and messages."""
    return stream.behind if isinstance(stream, PrintableStream) else stream


def install_printable_streams() -> None:
    """Put a `PrintableStream` before what is `sys.stdout` and `sys.stderr` now, if none stands there."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, PrintableStream):
            setattr(sys, name, cast(TextIO, PrintableStream(stream)))


@contextlib.contextmanager
def printable_streams() -> Iterator[None]:
    """Within, `sys.stdout` and `sys.stderr` are a `PrintableStream` each."""
    before = sys.stdout, sys.stderr
    write_any_text()
    install_printable_streams()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


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
        with contextlib.suppress(BrokenPipeError):
            _write(self.format(record), sys.stderr)


def _write(line: str, stream: TextIO) -> None:
    try:
        # Lines behind the first are indented, so that none can pass for one that a job began.
        print(printable(scrub(line), "\n\t").replace("\n", "\n  "), file=stream, flush=True)
    except BrokenPipeError:
        if stream is not sys.stdout:
            raise
        discard_stdout()  # the work goes on, and its exit code stays true
