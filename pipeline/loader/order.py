"""The order of samples: a pure function of seed and epoch, cut into streams that are divided among ranks and workers.

An epoch is the shards in random order, repeated from the beginning until it fills whole batches, and cut into V streams
of equal length. Inside a stream, places are shuffled in windows. A batch takes equally many places from every stream,
so its samples do not depend on the number of ranks or workers, and a position is one number.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

from trackmill.schemas.errors import InputError

MAX_STREAMS = 64
"""Largest number of streams that is chosen automatically, but for more ranks and workers than so many."""

_SHARDS, _WINDOW, _PLACE = range(3)


class Order:
    """Maps the places of an epoch to samples.

    Args:
        first: (S + 1,) int64, see `trackmill.pipeline.loader.catalog.Catalog`.
        batch_size: B, samples of a (micro) batch over all ranks.
        streams: V, a divisor of B; 0: the largest divisor up to `MAX_STREAMS`.
        window: places of a stream that are shuffled among each other.
        seed: at least 0, below 2**64.

    Raises:
        ValueError: V does not divide B; the message says which numbers do.
    """

    def __init__(self, first: NDArray[np.int64], batch_size: int, streams: int, window: int, seed: int) -> None:
        divisors = [n for n in range(1, batch_size + 1) if batch_size % n == 0]
        self.streams = streams or max(n for n in divisors if n <= MAX_STREAMS)
        if self.streams not in divisors:
            raise InputError(
                f"data.streams is {streams}, which does not divide a batch of {batch_size} samples; "
                f"take one of {', '.join(map(str, divisors))}, or 0"
            )
        self.batch_size, self.window, self.seed = batch_size, window, seed
        self.num_samples = int(first[-1])
        self.batches_per_epoch = -(-self.num_samples // batch_size)
        self.step = batch_size // self.streams
        """Number of places that a batch takes from each stream."""
        self.stream_length = self.step * self.batches_per_epoch
        self.num_windows = -(-self.stream_length // window)
        self._first = first
        # Keeps two epochs, because near the end of one, some streams already need the next.
        self._sequence = lru_cache(maxsize=2)(self._permute_shards)

    def places(self, stream: int, window: int) -> range:
        """Places of the epoch that a window covers, in the order before shuffling."""
        begin = stream * self.stream_length
        return range(begin + window * self.window, begin + min((window + 1) * self.window, self.stream_length))

    def shuffled(self, epoch: int, stream: int, window: int) -> NDArray[np.int64]:
        """(W,) places of a window in the order in which batches take them; the last window may be shorter."""
        places = self.places(stream, window)
        rng = generator(self.seed, _WINDOW, epoch, stream, window)
        return np.int64(places.start) + rng.permutation(len(places))

    def samples(self, epoch: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Samples (catalog indices) at some places of an epoch."""
        shards, ends = self._sequence(epoch)
        places = np.asarray(places, np.int64) % self.num_samples
        at = np.searchsorted(ends, places, side="right")
        shard = shards[at]
        sizes = self._first[shard + 1] - self._first[shard]
        return self._first[shard] + places - (ends[at] - sizes)

    def batch(self, number: int, streams: range) -> list[int]:
        """Samples that a batch takes from some streams, before bad ones are replaced."""
        epoch, inside = divmod(number, self.batches_per_epoch)
        places = []
        for stream in streams:
            for at in range(inside * self.step, (inside + 1) * self.step):
                window, index = divmod(at, self.window)
                places.append(int(self.shuffled(epoch, stream, window)[index]))
        return [int(sample) for sample in self.samples(epoch, np.array(places, np.int64))]

    def rng(self, epoch: int, place: int, attempt: int = 0) -> np.random.Generator:
        """The random generator of one place and one attempt at filling it."""
        return generator(self.seed, _PLACE, epoch, place, attempt)

    def _permute_shards(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        shards = generator(self.seed, _SHARDS, epoch).permutation(len(self._first) - 1)
        return shards, np.cumsum(self._first[shards + 1] - self._first[shards])

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_sequence"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._sequence = lru_cache(maxsize=2)(self._permute_shards)


def generator(seed: int, purpose: int, epoch: int, a: int = 0, b: int = 0) -> np.random.Generator:
    """A generator that depends only on its arguments, each at least 0; other arguments give other numbers.

    Philox is made for this (Salmon et al., Parallel random numbers: as easy as 1, 2, 3): the arguments are its key and
    the high words of its counter. No seed is hashed, which would cost more than reading a sample.
    """
    # NumPy's annotations allow only its own class; its documentation allows any ISeedSequence.
    philox = np.random.Philox(_NO_SEED)  # type: ignore[arg-type]  # given a key it would ask the system for a seed first, and drop it
    philox.state = {
        "bit_generator": "Philox",
        "state": {
            "counter": np.array([0, a, b, epoch], np.uint64),
            "key": np.array([seed, purpose], np.uint64),
        },
        "buffer": _NOTHING,
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
    return np.random.Generator(philox)


class _NoSeed(ISeedSequence):
    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[np.uint64]:
        return _NOTHING[:n_words]


_NOTHING = np.zeros(4, np.uint64)
_NO_SEED = _NoSeed()


def choose_streams(batch_size: int, world: int, workers: int) -> int:
    """The number of streams where none is set: as many as the batch allows, up to `MAX_STREAMS`.

    With more loader workers than that over all ranks, one for each of them: a worker needs a stream of its own.

    Args:
        batch_size: B, samples of a (micro) batch over all ranks.
        world: number of ranks, each of which needs equally many streams.
        workers: of each rank.
    """
    limit = max(MAX_STREAMS, world * workers)
    divisors = [n for n in range(1, min(batch_size, limit) + 1) if batch_size % n == 0]
    return max([n for n in divisors if n % world == 0] or divisors)


def share(streams: int, world: int, rank: int, workers: int) -> tuple[range, int]:
    """The streams of a rank, and how many workers can share them equally: at most `workers`, 0 for the rank itself.

    Raises:
        ValueError: the ranks cannot have equally many streams; the message says which numbers work.
    """
    if streams % world:
        divisors = [n for n in range(1, streams + 1) if streams % n == 0]
        raise InputError(
            f"{streams} streams cannot be shared by {world} ranks; set data.streams to a multiple of {world} that "
            f"divides the batch, or take {', '.join(map(str, divisors))} ranks"
        )
    own = streams // world
    fitting = max((n for n in range(1, workers + 1) if own % n == 0), default=0)
    return range(rank * own, (rank + 1) * own), fitting
