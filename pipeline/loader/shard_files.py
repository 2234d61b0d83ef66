"""Reads the bytes of samples from local shards, from a cache, or from windows held in memory."""

from __future__ import annotations

import os
from bisect import bisect_right
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.loader.cache import ShardCache, check_length, other_length
from trackmill.pipeline.loader.catalog import Catalog
from trackmill.pipeline.shards.tar import BadShard
from trackmill.pipeline.sidecars.tables import SidecarTables
from trackmill.pipeline.storage.credentials import redact, scrub
from trackmill.pipeline.storage.files import is_local, read_bytes
from trackmill.schemas.errors import StorageError

_FETCHERS = 4


@dataclass
class _Held:
    """What a stream needs: its shards, or the bytes of each run by (first, last) sample."""

    shards: set[int] = field(default_factory=set)
    runs: dict[tuple[int, int], Future[bytes]] = field(default_factory=dict)


class ShardFiles:
    """Reads samples for the streams of one process.

    A local shard is read in place. A remote one is fetched whole into the cache, in the background, as soon as a
    window needs it. Without a cache, the part of each shard that a window needs, which is one byte range, is fetched
    into memory and kept as long as the window lasts. Samples are never fetched one by one over a network.

    Args:
        catalog: the data set's catalog.
        cache: local folder for remote shards; empty for none.
        cache_bytes: size limit of the cache in bytes.

    Raises:
        ConfigError: see `ShardCache`.
    """

    def __init__(self, catalog: Catalog, cache: str, cache_bytes: int) -> None:
        self._catalog = catalog
        self._first = catalog.first.tolist()  # looked up for every sample, for which numpy is slow
        self.local = is_local(catalog.url)
        self._cache = None
        if cache and not self.local:
            self._cache = ShardCache(cache, cache_bytes, max(shard.num_bytes for shard in catalog.shards))
        self._pool = None if self.local else ThreadPoolExecutor(_FETCHERS, "fetch")
        self._held: dict[int, _Held] = {}
        self._open: dict[int, Future[int]] = {}
        self._bad: dict[int, str] = {}
        self.tables = SidecarTables(catalog.sidecars, catalog.shards)
        """Rows of the sidecars. They are small compared with the shards, so they are in memory, not in the cache."""

    def need(self, stream: int, windows: list[NDArray[np.int64]]) -> None:
        """Declare the samples that a stream will read next, window by window, and release all others.

        Starts fetching remote bytes, and does not wait for them.
        """
        held = self._held.setdefault(stream, _Held())
        runs = {run for samples in windows for run in self._runs(samples)}
        held.shards = {self.shard_of(first) for first, _ in runs}
        if self._pool is not None and self._cache is None:
            held.runs = {run: held.runs.get(run) or self._pool.submit(self._fetch, *run) for run in sorted(runs)}
            return
        if self._cache is not None:
            for shard in sorted(held.shards):
                self._descriptor(shard)
        wanted = set().union(*(other.shards for other in self._held.values()))
        for shard in [shard for shard, opened in self._open.items() if shard not in wanted and opened.done()]:
            _close(self._open.pop(shard))

    def shard_of(self, sample: int) -> int:
        """Index of the shard of a sample."""
        return bisect_right(self._first, sample) - 1

    def piece(self, stream: int, sample: int) -> bytes | memoryview:
        """The bytes of a sample in its tar.

        Raises:
            BadShard: its shard is missing, or its length differs from the catalog's.
            OSError: storage failed after all retries; the message names the shard.
        """
        catalog, shard = self._catalog, self.shard_of(sample)
        if shard in self._bad:
            raise BadShard(self._bad[shard])
        offset, size = int(catalog.offsets[sample]), int(catalog.sizes[sample])
        try:
            if self._pool is not None and self._cache is None:
                return self._from_runs(stream, shard, sample, offset, size)
            piece = os.pread(self._descriptor(shard).result(), size, offset)
            if len(piece) != size:
                raise BadShard(f"{catalog.shards[shard].name}: became shorter while it was read")
            return piece
        except BadShard as error:
            self._bad[shard] = str(error)
            raise
        except OSError as error:
            raise StorageError(f"{redact(catalog.shard_urls[shard])}: {scrub(str(error))}") from error

    def close(self) -> None:
        """Close files and release fetched bytes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        for opened in self._open.values():
            _close(opened)
        self._open.clear()
        self._held.clear()

    def _runs(self, samples: NDArray[np.int64]) -> list[tuple[int, int]]:
        """(first, last) sample in each shard of `samples`; all samples in between are in the window too, except in the
        last window of an epoch."""
        ordered = np.sort(samples)
        begins = np.flatnonzero(np.diff(self._catalog.shard_of(ordered), prepend=-1))
        return list(zip(ordered[begins].tolist(), ordered[np.append(begins[1:], len(ordered)) - 1].tolist()))

    def _from_runs(self, stream: int, shard: int, sample: int, offset: int, size: int) -> memoryview:
        held = self._held.get(stream)
        for (first, last), run in held.runs.items() if held else ():
            if first <= sample <= last:
                begin = offset - int(self._catalog.offsets[first])
                return memoryview(run.result())[begin : begin + size]
        check_length(self._catalog.shard_urls[shard], self._catalog.shards[shard])
        return memoryview(read_bytes(self._catalog.shard_urls[shard], offset, size))

    def _fetch(self, first: int, last: int) -> bytes:
        catalog = self._catalog
        shard = self.shard_of(first)
        check_length(catalog.shard_urls[shard], catalog.shards[shard])
        begin = int(catalog.offsets[first])
        return read_bytes(catalog.shard_urls[shard], begin, int(catalog.offsets[last] + catalog.sizes[last]) - begin)

    def _descriptor(self, shard: int) -> Future[int]:
        opened = self._open.get(shard)
        if opened is None:
            if self._pool is not None:
                opened = self._pool.submit(self._open_cached, shard)
            else:
                opened = Future()
                opened.set_result(self._open_local(shard))
            self._open[shard] = opened
        return opened

    def _open_local(self, shard: int) -> int:
        info = self._catalog.shards[shard]
        try:
            descriptor = os.open(self._catalog.shard_urls[shard], os.O_RDONLY)
        except FileNotFoundError:
            raise BadShard(f"{info.name}: is missing") from None
        found = os.fstat(descriptor).st_size
        if found != info.num_bytes:
            os.close(descriptor)
            raise other_length(info, found)
        return descriptor

    def _open_cached(self, shard: int) -> int:
        assert self._cache is not None
        return self._cache.open(self._catalog.shard_urls[shard], self._catalog.shards[shard])


def _close(opened: Future[int]) -> None:
    if opened.done() and not opened.cancelled() and opened.exception() is None:
        os.close(opened.result())
