"""Rich's console for jobs: a reader of a pipe who has seen enough ends no work."""

from __future__ import annotations

from rich.console import Console


class RichConsole(Console):
    """As rich's own, which calls `sys.exit(1)` where the pipe that it writes to is closed, such as by `head`."""

    def on_broken_pipe(self) -> None:
        """Let the job's frame see the `BrokenPipeError`; it knows that this is no failure."""
        raise
