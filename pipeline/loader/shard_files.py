"""Reads samples from local shards, from a cache, or from windows held in memory, and compares their checksums."""

from __future__ import annotations

import os
from bisect import bisect_right
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.loader.cache import CacheFull, ShardCache, check_length, file_sha256, other_hash, other_length
from trackmill.pipeline.loader.catalog import Catalog
from trackmill.pipeline.loader.open_files import OpenFiles
from trackmill.pipeline.loader.settings import DataSettings
from trackmill.pipeline.shards.tar import BadShard, checksum
from trackmill.pipeline.sidecars.tables import SidecarTables
from trackmill.pipeline.storage.credentials import redact, scrub
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.urls import is_local
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

    What has a checksum is compared with it, see `DataSettings.verify`. What differs is fetched once more, where it was
    fetched; then it is bad.

    Args:
        catalog: the data set's catalog.
        settings: `cache`, `cache_bytes` and `verify` of it.

    Raises:
        ConfigError: see `ShardCache`.
    """

    def __init__(self, catalog: Catalog, settings: DataSettings) -> None:
        self._catalog = catalog
        self._first = catalog.first.tolist()  # looked up for every sample, for which numpy is slow
        self.local = is_local(catalog.url)
        self._cache = None
        if settings.cache and not self.local:
            largest = max(shard.num_bytes for shard in catalog.shards)
            self._cache = ShardCache(settings.cache, settings.cache_bytes, largest)
        self._pool = None if self.local else ThreadPoolExecutor(_FETCHERS, "fetch")
        self._verify = settings.verify
        self._held: dict[int, _Held] = {}
        self._files = OpenFiles()
        self._fetching: dict[int, Future[None]] = {}
        self._hashed: dict[int, tuple[int, ...]] = {}
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
        wanted = set().union(*(other.shards for other in self._held.values()))
        if self._pool is not None:
            for shard in sorted(held.shards):
                if shard not in self._fetching:
                    self._fetching[shard] = self._pool.submit(self._open, shard)
            for shard in [shard for shard, done in self._fetching.items() if shard not in wanted and done.done()]:
                del self._fetching[shard]
        self._files.close_all_but(wanted)

    def shard_of(self, sample: int) -> int:
        """Index of the shard of a sample."""
        return bisect_right(self._first, sample) - 1

    def compares_frames(self, sample: int) -> bool:
        """Whether the frames of a sample are to be compared with the SHA-256 in its record."""
        if self._verify != "samples":
            return self._verify == "frames"
        if self._catalog.checksums[sample]:
            return False
        in_ranges = self._pool is not None and self._cache is None
        return in_ranges or not self._catalog.shards[self.shard_of(sample)].sha256

    def piece(self, stream: int, sample: int) -> bytes | memoryview:
        """The bytes of a sample in its tar.

        Raises:
            BadShard: its shard is missing, or has another length or hash than the catalog says, or the sample has.
            OSError: storage failed after all retries; the message names the shard.
        """
        catalog, shard = self._catalog, self.shard_of(sample)
        if shard in self._bad:
            raise BadShard(self._bad[shard])
        try:
            piece = self._read(stream, shard, sample)
            expected = int(catalog.checksums[sample]) if self._verify == "samples" else 0
            if expected and checksum(piece) != expected:
                piece = self._read_again(shard, sample, expected)
            return piece
        except CacheFull:
            raise
        except OSError as error:
            raise StorageError(f"{redact(catalog.shard_urls[shard])}: {scrub(str(error))}") from error

    def close(self) -> None:
        """Close files and release fetched bytes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._files.close_all_but(())
        self._fetching.clear()
        self._held.clear()

    def _runs(self, samples: NDArray[np.int64]) -> list[tuple[int, int]]:
        """(first, last) sample in each shard of `samples`; all samples in between are in the window too, except in the
        last window of an epoch."""
        ordered = np.sort(samples)
        begins = np.flatnonzero(np.diff(self._catalog.shard_of(ordered), prepend=-1))
        return list(zip(ordered[begins].tolist(), ordered[np.append(begins[1:], len(ordered)) - 1].tolist()))

    def _read(self, stream: int, shard: int, sample: int) -> bytes | memoryview:
        """The bytes of a sample from where they are; a shard that is not what its receipt says is bad from then on."""
        offset, size = int(self._catalog.offsets[sample]), int(self._catalog.sizes[sample])
        try:
            if self._pool is not None and self._cache is None:
                return self._from_runs(stream, shard, sample, offset, size)
            piece = self._files.read(shard, size, offset)
            if piece is None and shard in self._fetching:
                self._fetching[shard].result()
                piece = self._files.read(shard, size, offset)
            while piece is None:  # never opened, or closed to make room for others
                self._open(shard)
                piece = self._files.read(shard, size, offset)
            if len(piece) != size:
                raise BadShard(f"{self._catalog.shards[shard].name}: became shorter while it was read")
            return piece
        except BadShard as error:
            self._bad[shard] = str(error)
            raise

    def _read_again(self, shard: int, sample: int, expected: int) -> bytes:
        """The bytes of a sample whose checksum differs, from where they came from: a copy may have been damaged.

        Raises:
            BadShard: they differ there too.
        """
        url, info = self._catalog.shard_urls[shard], self._catalog.shards[shard]
        offset, size = int(self._catalog.offsets[sample]), int(self._catalog.sizes[sample])
        if self._cache is not None:
            self._files.close(shard)
            self._cache.forget(url, info)
            self._open(shard)
            piece = self._files.read(shard, size, offset) or b""
        else:
            piece = read_bytes(url, offset, size)
        found = checksum(piece)
        if found != expected:
            raise BadShard(
                f"{info.name}: the sample of {size} bytes at byte {offset} is damaged: its checksum is "
                f"{found & _64_BITS:x}, its receipt says {expected & _64_BITS:x}"
            )
        return piece

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

    def _open(self, shard: int) -> None:
        self._files.open(shard, lambda: self._open_local(shard) if self._cache is None else self._open_cached(shard))

    def _open_local(self, shard: int) -> int:
        info = self._catalog.shards[shard]
        try:
            descriptor = os.open(self._catalog.shard_urls[shard], os.O_RDONLY)
        except FileNotFoundError:
            raise BadShard(f"{info.name}: is missing") from None
        try:
            status = os.fstat(descriptor)
            if status.st_size != info.num_bytes:
                raise other_length(info, status.st_size)
            identity = (status.st_dev, status.st_ino, status.st_mtime_ns)
            if self._hashes(shard) and self._hashed.get(shard) != identity:
                found = file_sha256(descriptor)
                if found != info.sha256:
                    raise other_hash(info, found)
                self._hashed[shard] = identity
            return descriptor
        except BaseException:
            os.close(descriptor)
            raise

    def _open_cached(self, shard: int) -> int:
        assert self._cache is not None
        info = self._catalog.shards[shard]
        check = self._hashes(shard) and shard not in self._hashed
        descriptor = self._cache.open(self._catalog.shard_urls[shard], info, check)
        self._hashed[shard] = ()
        return descriptor

    def _hashes(self, shard: int) -> bool:
        """Whether a shard is hashed when it is opened: nothing else is known of its samples."""
        first, last = self._first[shard], self._first[shard + 1]
        known = self._verify != "samples" or not self._catalog.shards[shard].sha256
        return not known and not self._catalog.checksums[first:last].all()


_64_BITS = (1 << 64) - 1
