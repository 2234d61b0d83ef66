"""Probing many files before the plan is made: several at once, because remote files are mostly waiting.

Where limits are in force (`trackmill.pipeline.isolation.limits`) files are looked at in child processes, so that one
that crashes its reader, or never lets it go, costs itself and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from trackmill.pipeline.console.progress_line import ProgressLine
from trackmill.pipeline.isolation.call_each import Refused, call_each
from trackmill.pipeline.isolation.limits import limits_in_force
from trackmill.pipeline.storage.credentials import protocol_of
from trackmill.pipeline.storage.ranges import Place

T = TypeVar("T")
Where = TypeVar("Where", str, Place)

_AT_ONCE = 16
_CHILDREN = 4
_INTERVAL_S = 10.0


def probe_files(
    places: Sequence[Where], probe: Callable[[Where], T], things: str, refuse: Callable[[str], T], times: int = 1
) -> Iterator[T]:
    """Results of `probe` on every file, in the order given.

    Args:
        places: the files, or parts of files.
        probe: reads the header or index of one of them; called in several threads or processes, so it is a function
            of a module, or a `functools.partial` of one.
        things: what they are, for the progress line.
        refuse: what stands for a file that took too much memory or time, or ended its process; given the reason.
        times: how many times the limit on time each may take.
    """
    progress = ProgressLine(len(places), "probed", _INTERVAL_S, things=things)
    for result in _results(places, probe, times):
        progress(1)
        yield refuse(result.reason) if isinstance(result, Refused) else result
    progress.close()


def _results(places: Sequence[Where], probe: Callable[[Where], T], times: int) -> Iterator[T | Refused]:
    limits = limits_in_force()
    # What `memory://` names exists in this process alone.
    here = limits is None or any(protocol_of(_uri(place)) == "memory" for place in places)
    if here or limits is None:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="probe") as pool:
            yield from pool.map(probe, places)
        return
    children = max(1, min(_CHILDREN, os.cpu_count() or 1, len(places)))
    limits = replace(limits, times=times)
    yield from call_each(_Probing, (probe,), "run", places, limits, children=children, at_once=_AT_ONCE // children)


def _uri(place: str | Place) -> str:
    return place if isinstance(place, str) else place.uri


class _Probing:
    """What a child holds."""

    def __init__(self, probe: Callable[[Any], Any]) -> None:
        self._probe = probe

    def run(self, place: str | Place) -> Any:
        return self._probe(place)
