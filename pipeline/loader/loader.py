"""Batches for one rank, without end, from any position: workers read and augment, the rank joins their parts."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator
from typing import Any, TypedDict

import torch
from torch.multiprocessing import get_context
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from trackmill.pipeline.loader.catalog import Catalog
from trackmill.pipeline.loader.contract import Collate, MakeExample
from trackmill.pipeline.loader.order import Order, share
from trackmill.pipeline.loader.packing import pack, unpack
from trackmill.pipeline.loader.settings import DataSettings
from trackmill.pipeline.loader.shard_files import ShardFiles
from trackmill.pipeline.loader.stream import BatchPart, StreamReader, TooManyBad
from trackmill.pipeline.storage.credentials import redact, storage_environment
from trackmill.pipeline.storage.files import is_local
from trackmill.schemas.errors import JobError

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # of <malloc.h>
NAMED = 10
"""So many bad samples are named in messages."""


class WorkerDied(JobError):
    """A worker process ended by itself or was killed."""


class LoaderState(TypedDict):
    """Position in the order: `seed` and `batches_done` say all of it, the rest is what they were counted with."""

    seed: int
    batches_done: int
    epoch: int
    batch_size: int
    streams: int
    window: int


class ShardLoader(Iterator[Any]):
    """This rank's parts of all batches from a position on; what they hold follows from the order alone.

    Args:
        catalog: of the data set.
        settings: section `data`; `batch_size` of it is not looked at.
        batch_size: B, samples of a micro batch over all ranks.
        make_example: run in the workers, so it is pickled.
        collate: run in this process; what it gives is what the loader gives.
        rank, world: which ranks' parts these are.
        seed: of the order and of everything random in examples.
        batches_done: micro batches that were handed out before, by any number of ranks and workers.

    Raises:
        ValueError: B, the streams and the ranks do not fit; says which numbers do.
        ConfigError: see `trackmill.pipeline.loader.cache.ShardCache`.
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
    ) -> None:
        self.order = Order(catalog.first, batch_size, settings.streams, settings.window, seed)
        streams, self.workers = share(self.order.streams, world, rank, settings.workers)
        self.batches_done = batches_done
        """Micro batches handed out, since the beginning of training."""
        self.wait_s = 0.0
        """Seconds spent waiting for data and joining it, since the loader was made."""
        self.notices = list(_notices(catalog, settings, self.order, len(streams), self.workers))
        """What people should know about how the settings were met."""
        self._catalog, self._collate, self._rank = catalog, collate, rank
        self._max_bad = settings.max_bad * len(catalog)
        self._bad: dict[int, str] = {}
        # Made here even when workers make their own: what is wrong with the settings is said at once.
        self._files = ShardFiles(catalog, settings.cache, settings.cache_bytes)
        streams_of = _Streams(catalog, settings, self.order, streams, make_example, self._max_bad, batches_done)
        self._iterator: Any = None
        if self.workers:
            self._iterator = _start_workers(streams_of, self.workers, settings.prefetch)
            self._parts: Iterator[BatchPart] = map(unpack, self._iterator)
        else:
            self._parts = streams_of.parts(streams, self._files)

    @property
    def bad(self) -> int:
        """Number of different samples that this rank could not use so far."""
        return len(self._bad)

    def bad_samples(self) -> list[tuple[str, str]]:
        """(key, reason) of the first of them."""
        first = sorted(self._bad)[:NAMED]
        return [(self._catalog.key(sample), self._bad[sample]) for sample in first]

    def state(self) -> LoaderState:
        """The position after the batch that was handed out last, however far the workers have read ahead."""
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
            TooManyBad: more samples are bad than `data.max_bad` allows; names some.
            OSError: storage failed for good; the same position can be loaded again.
            WorkerDied: a worker was killed; likewise.
        """
        begin = time.perf_counter()
        examples: list[Any] = []
        for _ in range(max(self.workers, 1)):
            examples += self._receive().examples
        batch = self._collate(examples)
        self.batches_done += 1
        self.wait_s += time.perf_counter() - begin
        return batch

    def close(self) -> None:
        """End the workers and close files; the position stays readable, batches come no more."""
        self._parts = iter(())
        if self._iterator is not None:
            self._iterator._shutdown_workers()  # torch does this when the iterator is deleted, whenever that is
            self._iterator = None
        self._files.close()

    def __del__(self) -> None:
        if getattr(self, "_iterator", None) is not None:
            self.close()

    def _receive(self) -> BatchPart:
        try:
            part = next(self._parts)
        except (RuntimeError, ConnectionError, EOFError) as error:
            if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker"):
                raise
            raise WorkerDied(
                f"rank {self._rank}: a loader worker was killed or crashed ({error}); if memory ran out, lower "
                "data.workers or data.prefetch, or enlarge /dev/shm; the same command goes on from the last checkpoint"
            ) from None
        for sample, reason in part.bad:
            self._bad.setdefault(sample, reason)
        if len(self._bad) > self._max_bad or isinstance(part.error, TooManyBad):
            named = "".join(f"\n  {key}: {reason}" for key, reason in self.bad_samples())
            raise TooManyBad(
                f"{redact(self._catalog.url)}: {self.bad} of {len(self._catalog)} samples cannot be used, more than "
                f"data.max_bad allows; mine their units again (jobs/inspect_shards.py --verify lists all that is "
                f"wrong) or raise data.max_bad. The first are:{named}"
            )
        if part.error is not None:
            raise part.error
        return part


class _Streams(IterableDataset[Any]):
    """What a worker is given: all it needs to make its share of the parts."""

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
        os.environ.update(self._environment)
        count = len(self._streams) // worker.num_workers
        own = self._streams[worker.id * count : (worker.id + 1) * count]
        files = ShardFiles(self._catalog, self._settings.cache, self._settings.cache_bytes)
        try:
            for part in self.parts(own, files):
                yield pack(part)
        finally:
            files.close()


def _start_workers(streams: _Streams, workers: int, prefetch: int) -> Any:
    # Forked from a server that has imported everything and runs nothing: quick, and safe with fsspec and CUDA, which a
    # fork of this process would not be.
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
        generator=torch.Generator(),  # its own, since it draws a number that would be missing from torch's
    )
    return iter(loader)


def _prepare_worker(number: int) -> None:
    # Ctrl-C goes to the whole process group; the training process decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_memory()
    with contextlib.suppress(ImportError):
        import cv2

        cv2.setNumThreads(0)


def keep_memory() -> None:
    """Tell glibc to keep freed memory in this process, whole pictures included; elsewhere nothing happens.

    By default a block of more than 128 KiB is given back when it is freed, and the next picture waits for the kernel to
    clear the same pages again.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((_M_MMAP_THRESHOLD, 32 << 20), (_M_TRIM_THRESHOLD, 1 << 30), (_M_TOP_PAD, 16 << 20)):
            mallopt(parameter, value)


def _notices(catalog: Catalog, settings: DataSettings, order: Order, own: int, workers: int) -> Iterator[str]:
    if workers != settings.workers:
        yield f"data.workers: {workers} instead of {settings.workers}, since {own} streams of a rank are shared equally"
    if not is_local(catalog.url) and not settings.cache:
        samples = min(order.window, order.stream_length) * own
        gigabytes = 2 * samples * float(catalog.sizes.mean()) / 1e9
        yield (
            f"no data.cache: each rank holds up to {gigabytes:.1f} GB of samples in memory; if that is too much, set "
            "data.cache to a local folder, or lower data.window or data.streams"
        )
