"""Samples of a unit that is not done, kept beside the shards, so that a worker that is killed loses seconds of work.

A unit of 512 pictures takes a SAM minutes, and it cannot be made smaller: its shard would have other bytes. So whoever
mines it writes the samples that are finished every `run.keep_s` seconds as a piece, a small tar, into `work/part-N/`.
The next try at the unit takes them from there instead of mining them, and everything goes when the receipt is written.
A sample is the same whoever makes it, so it does not matter from which try a piece is, and two tries at once do no
harm. A unit that takes less than `run.keep_s` never writes any.

Nothing in a piece is believed: its name holds its SHA-256, its members are parsed like those of any shard, and a sample
counts only if it says of itself that this run made it of this item. Whatever is not so is mined.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future

from trackmill.pipeline.console.words import counted
from trackmill.pipeline.shards.decode import Sample, parse_sample
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.stream import RawSample, ShardBytes, raw_samples
from trackmill.pipeline.shards.tar import BadShard, TarWriter
from trackmill.pipeline.storage.credentials import error_text
from trackmill.pipeline.storage.files import exists, read_bytes
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.publish import publish_bytes, remove
from trackmill.pipeline.storage.urls import basename, filesystem, is_local
from trackmill.pipeline.workers.task import UnitTask
from trackmill.schemas.keys import receipt_name, unit_name
from trackmill.schemas.media import WorkItem

log = logging.getLogger("trackmill")

_PIECE = re.compile(r"^piece-([0-9a-f]{64})\.tar$")
_UNIT = re.compile(r"(?:^|/)part-(\d{8,})(?:/[^/]+)?$")
_MOST_BYTES = 64 << 20
"""Samples that are waiting to be kept are held in memory: with so many, a piece is written before its time."""
_LARGEST_PIECE = 2 << 30
"""A clip can be large, and a piece holds one sample at least."""
_MOST_PIECES = 4096
_WORTH = 1 / 3
"""A worker that is told to end keeps what it has if it is at least so much of what it would have kept anyway."""


class KeptUnit:
    """The samples of one unit that are kept.

    Args:
        layout: of the data set.
        task: the unit.
        fingerprint: of the run.
        keep_s: seconds of work after which a piece is written; 0: nothing is kept, and nothing is looked for.
        publisher: writes pieces.
        clock: seconds; for tests.
    """

    def __init__(
        self,
        layout: Layout,
        task: UnitTask,
        fingerprint: str,
        keep_s: float,
        publisher: Executor,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = layout.work_of(unit_name(task.unit))
        self._fingerprint = fingerprint
        self._keep_s = keep_s
        self._publisher, self._clock = publisher, clock
        self._since = clock()
        self._new: list[tuple[str, bytes]] = []
        self._new_bytes = 0
        self._writing: Future[None] | None = None
        self._any = self._failed = False
        self._places: dict[str, str] = {}
        self._piece: tuple[str, dict[str, RawSample]] = "", {}
        if keep_s:
            self._look({item.key for item in task.items})

    def sample(self, item: WorkItem) -> Sample | None:
        """The sample of an item, if an earlier try at the unit has kept it."""
        url = self._places.get(item.key)
        if url is None:
            return None
        if self._piece[0] != url:  # samples come in the order in which they were kept
            self._piece = url, self._read(url)
        raw = self._piece[1].get(item.key)
        try:
            sample = parse_sample(raw) if raw is not None else None
        except BadShard:
            return None
        return sample if sample is not None and self._is_of(sample, item) else None

    def members(self, item: WorkItem) -> list[tuple[str, bytes]]:
        """The members of the sample that `sample` gave last."""
        return self._piece[1][item.key].members

    def add(self, members: list[tuple[str, bytes]]) -> None:
        """A sample of this try is finished."""
        if not self._keep_s or self._failed:
            return
        self._new += members
        self._new_bytes += sum(len(data) for _, data in members)
        if self._clock() - self._since >= self._keep_s or self._new_bytes >= _MOST_BYTES:
            self._write()

    def flush(self) -> None:
        """The try ends before the unit is done: keep what it has, if that is worth it."""
        if self._new and self._clock() - self._since >= self._keep_s * _WORTH:
            self._write()
        if self._writing is not None:
            self._writing.result()

    def end(self) -> None:
        """The unit has its receipt: nothing of this is needed any more."""
        if self._writing is not None:
            self._writing.result()
        if self._any:
            _take_away(self._folder)

    def _write(self) -> None:
        members, self._new, self._new_bytes, self._since = self._new, [], 0, self._clock()
        if self._writing is not None:
            self._writing.result()  # one piece waits at most
        self._any = True
        self._writing = self._publisher.submit(self._publish, members)

    def _publish(self, members: list[tuple[str, bytes]]) -> None:
        tar = io.BytesIO()
        writer = TarWriter(tar)
        for name, data in members:
            writer.add(name, data)
        writer.finish()
        data = tar.getvalue()
        try:
            publish_bytes(f"{self._folder}/piece-{hashlib.sha256(data).hexdigest()}.tar", data)
        except OSError as error:
            # A convenience, no part of the result; what belongs to that says so itself when it cannot be written.
            self._failed = True
            log.warning("samples of an unfinished unit cannot be kept: %s", error_text(error))

    def _look(self, keys: set[str]) -> None:
        """Find out which samples lie in which piece."""
        try:
            files = list_files(self._folder)
        except OSError:
            return  # there is no such folder, mostly
        for file in files[:_MOST_PIECES]:
            self._any = True
            for key in self._read(file.uri):
                if key in keys:
                    self._places.setdefault(key, file.uri)
        if self._places:
            kept = counted(len(self._places), "sample was", "samples were")
            log.info("%s: %s kept by an earlier try", basename(self._folder), kept)

    def _read(self, url: str) -> dict[str, RawSample]:
        """The samples of a piece, by key; none of one that is damaged, gone, or not ours."""
        match = _PIECE.match(basename(url))
        if match is None:
            return {}
        try:
            data = read_bytes(url, max_bytes=_LARGEST_PIECE)
            if hashlib.sha256(data).hexdigest() != match[1]:
                return {}
            return {raw.key: raw for raw in raw_samples(_Held(data), basename(url))}
        except (BadShard, OSError):
            return {}

    def _is_of(self, sample: Sample, item: WorkItem) -> bool:
        origin = sample.record.origin
        return (
            sample.record.fingerprint == self._fingerprint
            and (origin.source, origin.source_id, origin.uri) == (item.source, item.source_id, item.uri)
            and origin.byte_range == ([item.offset, item.length] if item.offset >= 0 else None)
        )


def sweep_kept(layout: Layout) -> None:
    """Remove what is kept of units that have their receipts: who was killed between the two could not.

    On this machine the folders go too, whatever is in them: an unfinished piece has a hidden name.
    """
    local = is_local(layout.root)
    try:
        names = os.listdir(filesystem(layout.work)[1]) if local else [file.uri for file in list_files(layout.work)]
    except OSError:
        return
    for unit in sorted({int(match[1]) for name in names if (match := _UNIT.search(name))}):
        if exists(layout.receipt(receipt_name(unit))):
            _take_away(layout.work_of(unit_name(unit)))
    if local:
        with contextlib.suppress(OSError):  # units that are not done have something there
            os.rmdir(filesystem(layout.work)[1])


def _take_away(folder: str) -> None:
    try:
        remove(folder)
    except OSError as error:
        log.warning("%s: cannot be removed, and is of no more use: %s", basename(folder), error_text(error))


class _Held(ShardBytes):
    """Bytes that are in memory already."""

    def __init__(self, data: bytes) -> None:
        super().__init__("", len(data))
        self._chunk, self._fetched = data, len(data)
