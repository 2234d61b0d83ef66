"""Looking into many files before the plan is made: several at once, because remote files are mostly waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from trackmill.pipeline.console.progress_line import ProgressLine

T = TypeVar("T")

_AT_ONCE = 16
_INTERVAL_S = 10.0


def look_into(uris: Sequence[str], action: Callable[[str], T], things: str) -> Iterator[T]:
    """Results of `action` on every file, in the order given.

    Args:
        uris: the files.
        action: looks into one of them; called in several threads.
        things: what they are, for the progress line.
    """
    progress = ProgressLine(len(uris), "looked into", _INTERVAL_S, things=things)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="look") as pool:
        for result in pool.map(action, uris):
            progress(1)
            yield result
    progress.close()
