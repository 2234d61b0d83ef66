"""Probing many files before the plan is made: several at once, because remote files are mostly waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from trackmill.pipeline.console.progress_line import ProgressLine

T = TypeVar("T")

_AT_ONCE = 16
_INTERVAL_S = 10.0


def probe_files(uris: Sequence[str], probe: Callable[[str], T], things: str) -> Iterator[T]:
    """Results of `probe` on every file, in the order given.

    Args:
        uris: the files.
        probe: reads the header or index of one of them; called in several threads.
        things: what they are, for the progress line.
    """
    progress = ProgressLine(len(uris), "probed", _INTERVAL_S, things=things)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="probe") as pool:
        for result in pool.map(probe, uris):
            progress(1)
            yield result
    progress.close()
