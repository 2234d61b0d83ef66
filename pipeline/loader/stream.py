"""Reads the samples of some streams, batch after batch, turns them into examples, and replaces bad ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.loader.catalog import Catalog
from trackmill.pipeline.loader.contract import MakeExample, MakesByEpoch, UnfitSample
from trackmill.pipeline.loader.order import Order
from trackmill.pipeline.loader.sample import ShardSample
from trackmill.pipeline.loader.shard_files import ShardFiles
from trackmill.pipeline.shards.tar import BadShard
from trackmill.pipeline.storage.credentials import scrub
from trackmill.schemas.errors import InputError


class TooManyBad(InputError):
    """More samples are bad than `data.max_bad` allows; the message names some."""


MAX_UNFIT = 256
"""So many samples that no example can be made of are passed over for one place; with so many in a row, a setting is
wrong, and nobody should wait for the end of a large data set to be told."""


@dataclass
class BatchPart:
    """The part of a batch that one process makes.

    Args:
        examples: in the order of their places.
        bad: (sample, reason) of each bad sample that this part is the first to meet.
        error: why there are no examples, in this part and from now on.
    """

    examples: list[Any] = field(default_factory=list)
    bad: list[tuple[int, str]] = field(default_factory=list)
    error: Exception | None = None


@dataclass
class _Window:
    epoch: int
    places: NDArray[np.int64]
    samples: list[int]


class StreamReader:
    """Reads neighbouring streams of an order.

    A bad sample is replaced by the next good one of its window, in the window's order; if the whole window is bad, by
    the next good one of the epoch. So is one that no example can be made of, but that counts nowhere. So the sample at
    a place depends on the data and the order alone.

    Args:
        catalog: the data set's catalog.
        order: the order of its samples.
        streams: numbers of the streams to read.
        make_example: see `trackmill.pipeline.loader.contract.MakeExample`.
        files: reads the bytes.
        max_bad: largest number of bad samples; one more ends the reading.
    """

    def __init__(
        self,
        catalog: Catalog,
        order: Order,
        streams: Sequence[int],
        make_example: MakeExample,
        files: ShardFiles,
        max_bad: float,
    ) -> None:
        self._catalog, self._order, self._streams = catalog, order, streams
        self._files, self._max_bad = files, max_bad
        self._maker = lru_cache(maxsize=2)(partial(_maker_at, make_example))
        self._windows: dict[int, dict[int, _Window]] = {}
        self._bad: set[int] = set()
        self._new_bad: list[tuple[int, str]] = []

    def parts(self, batches_done: int) -> Iterator[BatchPart]:
        """This process's part of every batch from number `batches_done` on, without end.

        A part with an error is the last: storage failed (OSError), too many samples are bad, or none is fit.
        """
        batch = batches_done
        while True:
            self._new_bad = []
            try:
                examples = self._examples(batch)
            except (OSError, TooManyBad, UnfitSample) as error:
                yield BatchPart(bad=self._new_bad, error=error)
                return
            yield BatchPart(examples, self._new_bad)
            batch += 1

    def _examples(self, batch: int) -> list[Any]:
        places = [place for stream in self._streams for place in self._places(stream, batch)]
        # All are read before the first is decoded: alternating would evict code and data from the CPU's caches.
        read = [self._read(stream, window.samples[inside]) for stream, window, inside in places]
        return [self._example(*place, stored) for place, stored in zip(places, read)]

    def _places(self, stream: int, batch: int) -> Iterator[tuple[int, _Window, int]]:
        order = self._order
        epoch, number = divmod(batch, order.batches_per_epoch)
        begin, end = number * order.step, (number + 1) * order.step
        first, last = begin // order.window, (end - 1) // order.window
        numbers = [epoch * order.num_windows + index for index in range(first, last + 1)]
        held = self._windows.get(stream, {})
        if not self._files.local and 2 * (end - last * order.window) >= order.window:
            # Half way through a window, start to fetch the next one, so that nothing waits for it later.
            numbers.append(numbers[-1] + 1)
        if held.keys() != set(numbers):
            held = {number: held.get(number) or self._open_window(stream, number) for number in numbers}
            self._windows[stream] = held
            self._files.need(stream, [np.array(window.samples) for window in held.values()])
        for at in range(begin, end):
            index, inside = divmod(at, order.window)
            yield stream, held[epoch * order.num_windows + index], inside

    def _open_window(self, stream: int, number: int) -> _Window:
        epoch, index = divmod(number, self._order.num_windows)
        places = self._order.shuffled(epoch, stream, index)
        return _Window(epoch, places, self._order.samples(epoch, places).tolist())

    def _example(self, stream: int, window: _Window, inside: int, read: ShardSample | None) -> Any:
        place, attempt = int(window.places[inside]), -1
        unfit: list[str] = []
        make_example = self._maker(window.epoch)
        for step, sample in enumerate(self._candidates(window, inside)):
            if len(unfit) >= MAX_UNFIT:
                break
            stored = self._read(stream, sample) if step else read
            avoid = {sample}
            while stored is not None:
                attempt += 1
                rng = self._order.rng(window.epoch, place, attempt)
                partners: list[tuple[int, ShardSample]] = []
                another = partial(self._another, stream, window, stored, avoid, rng, partners)
                try:
                    return make_example(stored, rng, another)
                except UnfitSample as error:
                    unfit.append(str(error))
                    break
                except BadShard as error:
                    broken = [(number, partner.problem) for number, partner in partners if partner.problem]
                    if stored.problem or not broken:
                        self._count(sample, str(error))
                        break
                    # The sample is good, but its partner is bad: try again with another partner.
                    for number, problem in broken:
                        self._count(number, problem)
                        avoid.add(number)
        if unfit:
            raise UnfitSample(_none_fits(unfit))
        raise TooManyBad("not one sample of the epoch can be used")

    def _candidates(self, window: _Window, inside: int) -> Iterator[int]:
        count = len(window.samples)
        for step in range(count):
            yield window.samples[(inside + step) % count]
        total = self._order.stream_length * self._order.streams
        begin = int(window.places.max()) + 1
        for place in range(begin, begin + total - count):
            yield int(self._order.samples(window.epoch, np.array([place % total]))[0])

    def _another(
        self,
        stream: int,
        window: _Window,
        own: ShardSample,
        avoid: set[int],
        rng: np.random.Generator,
        partners: list[tuple[int, ShardSample]],
    ) -> ShardSample:
        count = len(window.samples)
        begin = int(rng.integers(count))
        for step in range(count):
            sample = window.samples[(begin + step) % count]
            if sample not in avoid and (stored := self._read(stream, sample)) is not None:
                partners.append((sample, stored))
                return stored
        return own

    def _read(self, stream: int, sample: int) -> ShardSample | None:
        info = self._catalog.shards[self._files.shard_of(sample)]
        try:
            piece = self._files.piece(stream, sample)
            frames = self._files.compares_frames(sample)
            return ShardSample(bytes(piece), info.name, int(self._catalog.offsets[sample]), self._files.tables, frames)
        except BadShard as error:
            self._count(sample, str(error))
            return None

    def _count(self, sample: int, reason: str) -> None:
        sample = self._catalog.first_copy(sample)
        if sample in self._bad:
            return
        self._bad.add(sample)
        self._new_bad.append((sample, scrub(reason)))
        if len(self._bad) > self._max_bad:
            raise TooManyBad("too many samples are bad")


def _maker_at(make_example: MakeExample, epoch: int) -> MakeExample:
    return make_example.at_epoch(epoch) if isinstance(make_example, MakesByEpoch) else make_example


def _none_fits(reasons: list[str]) -> str:
    more = f"; and {len(reasons) - 1} more samples, one after the other" if len(reasons) > 1 else ""
    return f"not one sample is fit to learn from: {scrub(reasons[0])}{more}"
