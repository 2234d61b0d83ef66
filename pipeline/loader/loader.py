"""An endless iterator over one rank's batches, from any position: workers read and augment, the rank joins parts."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch.multiprocessing import get_context
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from trackmill.pipeline.console.disk_space import too_little_disk_space, too_little_shared_memory
from trackmill.pipeline.loader.ahead import Ahead, pinned
from trackmill.pipeline.loader.catalog import Catalog
from trackmill.pipeline.loader.contract import Collate, MakeExample
from trackmill.pipeline.loader.order import Order, choose_streams, share
from trackmill.pipeline.loader.packing import SharedMemoryFull, pack, unpack
from trackmill.pipeline.loader.settings import DataSettings
from trackmill.pipeline.loader.shard_files import ShardFiles
from trackmill.pipeline.loader.stream import BatchPart, StreamReader, TooManyBad
from trackmill.pipeline.storage.credentials import adopt_environment, redact, storage_environment
from trackmill.pipeline.storage.urls import is_local
from trackmill.schemas.errors import JobError

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # of <malloc.h>
NAMED = 10
"""Largest number of bad samples that messages name."""


class WorkerDied(JobError):
    """A worker process crashed or was killed."""


class LoaderState(TypedDict):
    """Position in the order: `seed` and `batches_done`; the rest are the settings they are counted with."""

    seed: int
    batches_done: int
    epoch: int
    batch_size: int
    streams: int
    window: int


class ShardLoader(Iterator[Any]):
    """This rank's parts of all batches from a position on; only the order decides what they hold.

    Args:
        catalog: the data set's catalog.
        settings: section `data`; its `batch_size` is ignored.
        batch_size: B, samples of a micro batch over all ranks.
        make_example: runs in the workers, so it is pickled.
        collate: runs in this process; the loader yields what it returns.
        ahead: it runs in a thread, one batch ahead, and its tensors are pinned: for whoever trains on a GPU.
        rank, world: this rank, and the number of ranks.
        seed: seed of the order and of all randomness in examples.
        batches_done: micro batches that were yielded before, by any number of ranks and workers.

    Raises:
        ValueError: B, the streams and the ranks do not fit together; the message says which numbers do.
        ConfigError: see `trackmill.pipeline.loader.cache.ShardCache`.
        WorkerDied: a worker was killed while it was started.
    """

    def __init__(
        self,
        catalog: Catalog,
        settings: DataSettings,
        *,
        batch_size: int,
        make_example: MakeExample,
        collate: Collate,
        rank: int = 0,
        world: int = 1,
        seed: int = 0,
        batches_done: int = 0,
        ahead: bool = False,
    ) -> None:
        streams_wanted = settings.streams or choose_streams(batch_size, world, settings.workers)
        self.order = Order(catalog.first, batch_size, streams_wanted, settings.window, seed)
        streams, self.workers = share(self.order.streams, world, rank, settings.workers)
        self.batches_done = batches_done
        """Micro batches yielded since the beginning of training."""
        self.wait_s = 0.0
        """Seconds spent waiting for data and joining it, since the loader was made."""
        self.notices = list(_notices(catalog, settings, self.order, len(streams), self.workers))
        """Messages about settings that were changed, or that cost much memory."""
        self._catalog, self._collate, self._rank = catalog, collate, rank
        self._distinct = catalog.num_distinct
        self._max_bad = settings.max_bad * self._distinct
        # Those of batches that were yielded, and those of batches that were read: one ahead with `ahead`.
        self._bad: dict[int, str] = {}
        self._met: dict[int, str] = {}
        self._ahead: Ahead | None = None
        self._pin = ahead
        # Made here even when workers make their own, so that wrong settings fail at once.
        self._files = ShardFiles(catalog, settings)
        streams_of = _Streams(catalog, settings, self.order, streams, make_example, self._max_bad, batches_done)
        self._iterator: Any = None
        if self.workers:
            try:
                self._iterator = _start_workers(streams_of, self.workers, settings.prefetch)
            except (ConnectionError, EOFError) as error:  # the process was killed that they are forked from
                raise self._died(error) from None
            self._parts: Iterator[BatchPart] = map(_unpacked, self._iterator)
        else:
            self._parts = streams_of.parts(streams, self._files)
        self._ahead = Ahead(self._make) if ahead else None

    @property
    def bad(self) -> int:
        """Number of different samples that this rank has not been able to use so far."""
        return len(self._bad)

    def bad_samples(self) -> list[tuple[str, str]]:
        """(key, reason) of the first `NAMED` bad samples."""
        return self._named(self._bad)

    def _named(self, bad: Mapping[int, str]) -> list[tuple[str, str]]:
        return [(self._catalog.key(sample), bad[sample]) for sample in sorted(bad)[:NAMED]]

    def state(self) -> LoaderState:
        """The position after the batch that was yielded last, however far the workers have read ahead."""
        order = self.order
        return LoaderState(
            seed=order.seed,
            batches_done=self.batches_done,
            epoch=self.batches_done // order.batches_per_epoch,
            batch_size=order.batch_size,
            streams=order.streams,
            window=order.window,
        )

    def __next__(self) -> Any:
        """The next batch: what `collate` makes of this rank's examples.

        Raises:
            TooManyBad: more samples are bad than `data.max_bad` allows; the message names some.
            OSError: storage failed after all retries; a new loader can continue at the same position.
            WorkerDied: a worker was killed; likewise.
            SharedMemoryFull: a part of a batch does not fit into the machine's shared memory.
        """
        begin = time.perf_counter()
        try:
            batch, bad = self._make() if self._ahead is None else next(self._ahead)
        except Exception:
            self._bad |= self._met  # no batch comes any more: all that were met count
            raise
        for sample, reason in bad:
            self._bad.setdefault(sample, reason)
        self.batches_done += 1
        self.wait_s += time.perf_counter() - begin
        return batch

    def close(self) -> None:
        """End the workers and close files. No more batches come; `state` still gives the position."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None
        self._parts = iter(())
        if self._iterator is not None:
            self._iterator._shutdown_workers()  # torch does this when the iterator is deleted, whenever that is
            self._iterator = None
        self._files.close()

    def __del__(self) -> None:
        if getattr(self, "_iterator", None) is not None:
            self.close()

    def _make(self) -> tuple[Any, list[tuple[int, str]]]:
        """The next batch, and the bad samples that were met for it."""
        examples: list[Any] = []
        bad: list[tuple[int, str]] = []
        for _ in range(max(self.workers, 1)):
            part = self._receive()
            examples += part.examples
            bad += part.bad
        batch = self._collate(examples)
        return (pinned(batch) if self._pin else batch), bad

    def _died(self, error: Exception) -> WorkerDied:
        said = f" ({error})" if str(error) else ""
        return WorkerDied(
            f"rank {self._rank}: a loader worker was killed or crashed{said}; if memory ran out, lower data.workers or "
            "data.prefetch, or enlarge /dev/shm; the same command goes on from the last checkpoint"
        )

    def _receive(self) -> BatchPart:
        try:
            part = next(self._parts)
        except (RuntimeError, ConnectionError, EOFError) as error:
            if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker"):
                raise
            raise self._died(error) from None
        for sample, reason in part.bad:
            self._met.setdefault(sample, reason)
        if len(self._met) > self._max_bad or isinstance(part.error, TooManyBad):
            named = "".join(f"\n  {key}: {reason}" for key, reason in self._named(self._met))
            raise TooManyBad(
                f"{redact(self._catalog.url)}: {len(self._met)} of {self._distinct} samples cannot be used, more "
                f"than data.max_bad allows; mine their units again (jobs/inspect_shards.py --verify lists all that is "
                f"wrong) or raise data.max_bad. The first are:{named}"
            )
        if part.error is not None:
            raise part.error
        return part


class _Streams(IterableDataset[Any]):
    """The data set that each worker gets: all it needs to make its share of the parts."""

    def __init__(
        self,
        catalog: Catalog,
        settings: DataSettings,
        order: Order,
        streams: range,
        make_example: MakeExample,
        max_bad: float,
        batches_done: int,
    ) -> None:
        self._catalog, self._settings, self._order, self._streams = catalog, settings, order, streams
        self._make_example, self._max_bad, self._batches_done = make_example, max_bad, batches_done
        # The server that workers are forked from may be older than the credentials.
        self._environment = storage_environment()

    def parts(self, streams: range, files: ShardFiles) -> Iterator[BatchPart]:
        """Parts of some of the streams, see `StreamReader`."""
        reader = StreamReader(self._catalog, self._order, streams, self._make_example, files, self._max_bad)
        return reader.parts(self._batches_done)

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        assert worker is not None
        adopt_environment(self._environment, over=True)
        count = len(self._streams) // worker.num_workers
        own = self._streams[worker.id * count : (worker.id + 1) * count]
        files = ShardFiles(self._catalog, self._settings)
        try:
            for part in self.parts(own, files):
                yield _packed(part)
        finally:
            files.close()


def _packed(part: BatchPart) -> Any:
    """Packed, or as it is where it says that there is no room to be packed in."""
    try:
        return pack(part)
    except SharedMemoryFull as error:
        return BatchPart(error=error)


def _unpacked(received: Any) -> BatchPart:
    part: BatchPart = received if isinstance(received, BatchPart) else unpack(received)
    return part


def _start_workers(streams: _Streams, workers: int, prefetch: int) -> Any:
    # Workers are forked from a server that has imported everything and runs nothing. That is quick, and safe with
    # fsspec and CUDA, which a fork of this process would not be.
    context = get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__])
    loader = DataLoader(
        streams,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=prefetch,
        persistent_workers=True,
        multiprocessing_context=context,
        worker_init_fn=_prepare_worker,
        generator=torch.Generator(),  # so that the loader draws no number from torch's global generator
    )
    return iter(loader)


def _prepare_worker(number: int) -> None:
    # Ctrl-C goes to the whole process group; only the training process handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="parent?", daemon=True).start()
    keep_memory()
    with contextlib.suppress(ImportError):
        import cv2

        cv2.setNumThreads(0)


def _end_with_parent() -> None:
    """End this worker when the training process is gone, however it ended.

    torch looks at the parent too, which here is the fork server: that lives on for as long as a worker does, and so do
    the workers, each with all of its memory. With the last worker the server and the resource tracker end as well.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def keep_memory() -> None:
    """Make glibc keep freed memory in this process, whole pictures included; does nothing with other C libraries.

    By default glibc returns a freed block of more than 128 KiB to the kernel, and the next picture waits while the
    kernel clears the same pages again.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((_M_MMAP_THRESHOLD, 32 << 20), (_M_TRIM_THRESHOLD, 1 << 30), (_M_TOP_PAD, 16 << 20)):
            mallopt(parameter, value)


def _notices(catalog: Catalog, settings: DataSettings, order: Order, own: int, workers: int) -> Iterator[str]:
    if workers != settings.workers:
        yield f"data.workers: {workers} instead of {settings.workers}, since {own} streams of a rank are shared equally"
    if workers and (said := too_little_shared_memory()):
        yield f"{said}, or set data.workers = 0"
    if settings.cache and not is_local(catalog.url):
        used = sum(path.stat().st_size for path in Path(settings.cache).expanduser().glob("cached-*"))
        most = min(settings.cache_bytes, sum(shard.num_bytes for shard in catalog.shards))
        if said := too_little_disk_space(settings.cache, most - used, "what data.cache will hold"):
            yield f"{said}: lower data.cache_bytes, which is {settings.cache_bytes:,}, or name a folder on another disk"
    if not is_local(catalog.url) and not settings.cache:
        samples = min(order.window, order.stream_length) * own * catalog.num_distinct / len(catalog)
        gigabytes = 2 * samples * float(catalog.sizes.mean()) / 1e9
        yield (
            f"no data.cache: each rank holds up to {gigabytes:.1f} GB of samples in memory; if that is too much, set "
            "data.cache to a local folder, or lower data.window or data.streams"
        )
