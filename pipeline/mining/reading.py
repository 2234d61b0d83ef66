"""Reading of untrusted items in a child process, with limits on memory and time.

What comes back is either media or a verdict on the item. `run.isolate = false` reads in this process instead: the same
results for good items, and a debugger that can follow.
"""

from __future__ import annotations

import contextlib
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trackmill.models.outside import is_outside
from trackmill.pipeline.console.blame import place_outside
from trackmill.pipeline.isolation.limits import LimitReached, Limits, ReaderDied
from trackmill.pipeline.isolation.process import CallFailed
from trackmill.pipeline.isolation.remote_object import Calls, LocalObject, RemoteObject
from trackmill.pipeline.media.errors import BadItem, NothingToStore
from trackmill.pipeline.mining.settings import MineConfig, RunSettings, source_settings
from trackmill.pipeline.sources import open_source, settings_class, sources_of
from trackmill.pipeline.sources.base import ReadSettings, Source
from trackmill.pipeline.sources.check import BadMedia, check_media
from trackmill.pipeline.storage.credentials import error_text, protocol_of
from trackmill.pipeline.storage.files import read_once
from trackmill.pipeline.storage.urls import is_local
from trackmill.pipeline.storage.windows import MAX_WINDOW_BYTES, Range, Windows, reading_through
from trackmill.schemas.media import Media, WorkItem

_BATCHES = 3
"""Units whose items may be read or asked for at the same time, and one more."""

_SHARE_OF_MEMORY = 64


@dataclass(slots=True, kw_only=True)
class Reading:
    """What came of reading one item: media, or why there is none.

    Args:
        media: None unless `status` is `ok`.
        status: as in a receipt.
        error_class, reason: of what is not `ok`.
        broken: how a source from outside broke its contract, which is no fault of the item; "" if it did not.
    """

    media: Media | None = None
    status: Literal["ok", "quarantined", "skipped"] = "ok"
    error_class: str = ""
    reason: str = ""
    broken: str = ""


def item_limits(settings: RunSettings) -> Limits | None:
    """What reading one item may take; None where items are read in the worker itself."""
    return Limits(settings.item_memory_bytes, settings.item_timeout_s) if settings.isolate else None


def window_bytes(settings: RunSettings) -> int:
    """Largest piece of a tar that is fetched at once: little beside what reading an item may take."""
    return min(MAX_WINDOW_BYTES, settings.item_memory_bytes // _SHARE_OF_MEMORY or MAX_WINDOW_BYTES)


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Items that come together."""

    items: list[WorkItem]
    names: set[str]


class ItemReader:
    """Reads items one after the other, in a child process if limits are set.

    Args:
        config: of the run.
    """

    def __init__(self, config: MineConfig) -> None:
        given = source_settings(config).model_dump(mode="json")
        args = (config.source, config.read.model_dump(mode="json"), given)
        self._local = LocalObject(Sources, args)
        limits = item_limits(config.run)
        self._remote = RemoteObject(Sources, args, limits) if limits is not None else None
        self._window_bytes = window_bytes(config.run)
        self._batches: deque[_Batch] = deque(maxlen=_BATCHES)
        self._told: _Batch | None = None

    def start(self) -> None:
        """Get ready before the first item.

        Raises:
            ChildFailed: no child process could be started.
        """
        if self._remote is not None:
            self._remote.start()

    def expect(self, items: Sequence[WorkItem]) -> None:
        """Say which items come together: neighbours in a remote tar are then fetched by one request.

        Those of the unit before are still expected. Any thread may call it.
        """
        remote = [item for item in items if not is_local(item.uri)]
        if len(remote) > 1:
            self._batches.append(_Batch(remote, {item.source_id for item in remote}))

    def read(self, item: WorkItem) -> Reading:
        """Fetch and decode one item.

        Raises:
            ChildFailed: no child process could be started.
            BadMedia: a source from outside broke its contract.
        """
        # What `memory://` names exists in this process alone.
        if self._remote is None or protocol_of(item.uri) == "memory":
            calls: Calls = self._local
        else:
            calls = self._remote
        try:
            try:
                self._tell(calls, item)
                reading: Reading = calls.call("read", item)
            except ReaderDied:
                # Once more: the process may have been killed for another reason, such as a machine without free memory.
                self._told = None
                reading = calls.call("read", item)
        except (LimitReached, CallFailed) as error:
            self._told = None  # the process is another one, or may be
            reading = _refused(item, error)
        if reading.broken:
            raise BadMedia(reading.broken)
        return reading

    def _tell(self, calls: Calls, item: WorkItem) -> None:
        batch = next((each for each in tuple(self._batches) if item.source_id in each.names), None)
        if batch is None or batch is self._told:
            return
        self._told = batch
        try:
            calls.call("expect", batch.items, self._window_bytes)
        except (LimitReached, CallFailed):
            self._batches.remove(batch)  # without it each range is fetched by itself

    def interrupt(self) -> None:
        """End what another thread is reading."""
        if self._remote is not None:
            self._remote.interrupt()

    def close(self) -> None:
        """Let files and the child process go."""
        self._local.close()
        if self._remote is not None:
            self._remote.close()


class Sources:
    """The sources that items are read by, one instance of each, which may keep its last file open.

    Args:
        name: what `--source` says.
        read: `ReadSettings`, dumped.
        own: settings of the source's own, dumped.
    """

    def __init__(self, name: str, read: dict[str, Any], own: dict[str, Any]) -> None:
        self._name = name
        self._settings = ReadSettings(**read)
        self._own = settings_class(name)(**own)
        self._names = sources_of(name)  # imports them, which is no item's time
        self._open: dict[str, Source] = {}
        self._windows: Windows | None = None

    def expect(self, items: Sequence[WorkItem], max_bytes: int) -> None:
        """Get ready to fetch the byte ranges of these items by few requests; they take the place of others."""
        self.close()
        ranges: list[Range] = []
        for item in items:
            with contextlib.suppress(Exception):  # reading the item tells what is wrong with it
                ranges += [Range(*each) for each in self._source(item).ranges(item)]
        self._windows = Windows(ranges, read_once, max_bytes)

    def close(self) -> None:
        """Let go of what was fetched beforehand."""
        windows, self._windows = self._windows, None
        if windows is not None:
            windows.close()

    def read(self, item: WorkItem) -> Reading:
        """Media, or the verdict on an item that has none; raises `MemoryError` alone."""
        try:
            with reading_through(self._windows):
                media = self._source(item).read(item)
            if is_outside(self._name):
                check_media(item.source, media)
        except MemoryError:
            # With the traceback goes what the call held; a limit is told by who set it.
            raise MemoryError from None
        except NothingToStore as error:
            return Reading(status="skipped", error_class=type(error).__name__, reason=error_text(error))
        except BadMedia as error:
            return Reading(broken=str(error))
        except Exception as error:
            return Reading(status="quarantined", error_class=type(error).__name__, reason=reason_of(error))
        return Reading(media=media)

    def _source(self, item: WorkItem) -> Source:
        if item.source not in self._open:
            # Items bear the name that a source gives itself; where one from outside lies, only the settings say.
            name = self._name if item.source in self._names and is_outside(self._name) else item.source
            self._open[item.source] = open_source(name, self._settings, self._own)
        return self._open[item.source]


def reason_of(error: Exception) -> str:
    """The error's text, and where it was raised if that was in somebody's own code."""
    place = "" if isinstance(error, BadItem) else place_outside("".join(traceback.format_exception(error)))
    return error_text(error) + (f" (raised in {place})" if place else "")


def _refused(item: WorkItem, error: LimitReached | CallFailed) -> Reading:
    reason = error_text(LimitReached(f"{item.source_id}: {error}"))
    return Reading(status="quarantined", error_class=type(error).__name__, reason=reason)
