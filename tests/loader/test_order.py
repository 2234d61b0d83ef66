"""The order of samples: the same batches for any number of readers, every sample once an epoch."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trackmill.pipeline.loader.order import Order, choose_streams, generator, share

SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=20)


def first_of(sizes: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def rank_part(order: Order, batch: int, world: int, rank: int, workers: int) -> list[int]:
    """What a rank reads, joined from its workers as the loader does it."""
    streams, workers = share(order.streams, world, rank, workers)
    count = len(streams) // max(workers, 1)
    epoch, number = divmod(batch, order.batches_per_epoch)
    found: list[int] = []
    for worker in range(max(workers, 1)):
        for stream in streams[worker * count : (worker + 1) * count]:
            for at in range(number * order.step, (number + 1) * order.step):
                window, inside = divmod(at, order.window)
                place = order.shuffled(epoch, stream, window)[inside]
                found += order.samples(epoch, np.array([place])).tolist()
    return found


@settings(deadline=None, max_examples=25)
@given(SIZES, st.sampled_from([4, 8, 12]), st.integers(1, 20), st.integers(0, 2**32))
def test_batches_do_not_depend_on_ranks_and_workers(sizes: list[int], batch: int, window: int, seed: int) -> None:
    order = Order(first_of(sizes), batch, 4, window, seed)
    for number in (0, order.batches_per_epoch - 1, order.batches_per_epoch):
        whole = rank_part(order, number, 1, 0, 0)
        assert len(whole) == batch
        for world in (1, 2, 4):
            for workers in (0, 1, 2, 4):
                parts = [rank_part(order, number, world, rank, workers) for rank in range(world)]
                assert {len(part) for part in parts} == {batch // world}
                assert [sample for part in parts for sample in part] == whole


@settings(deadline=None)
@given(SIZES, st.sampled_from([(1, 0), (6, 3), (8, 8), (64, 0), (60, 4)]), st.integers(1, 40), st.integers(0, 5))
def test_every_sample_once_an_epoch(sizes: list[int], batch: tuple[int, int], window: int, epoch: int) -> None:
    order = Order(first_of(sizes), *batch, window, 3)
    total = sum(sizes)
    places = np.concatenate(
        [order.shuffled(epoch, stream, w) for stream in range(order.streams) for w in range(order.num_windows)]
    )
    assert sorted(places) == list(range(order.batches_per_epoch * batch[0]))
    counts = np.bincount(order.samples(epoch, places), minlength=total)
    padding = order.batches_per_epoch * batch[0] - total
    assert 0 <= padding < batch[0]
    assert counts.min() >= 1 and counts.sum() == total + padding
    if padding <= total:
        assert counts.max() <= 2, "padding repeats no sample before all others"


def test_epochs_and_seeds_differ_and_repeat() -> None:
    first = first_of([7] * 9)

    def epoch(seed: int, number: int) -> list[int]:
        order = pickle.loads(pickle.dumps(Order(first, 9, 3, 5, seed)))
        places = [order.shuffled(number, stream, w) for stream in range(3) for w in range(order.num_windows)]
        return order.samples(number, np.concatenate(places)).tolist()

    assert epoch(1, 0) == epoch(1, 0)
    assert len({tuple(epoch(seed, number)) for seed in (0, 1, 2**63) for number in (0, 1, 2)}) == 9


def test_generators_of_places_are_independent() -> None:
    order = Order(first_of([50]), 5, 5, 10, 7)
    drawn = {order.rng(epoch, place).integers(2**63) for epoch in range(20) for place in range(50)}
    assert len(drawn) == 1000
    values = np.array([order.rng(0, place).random() for place in range(2000)])
    assert abs(values.mean() - 0.5) < 0.03
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.1


def test_numbers_are_those_of_philox_with_that_key() -> None:
    for arguments in ((0, 0, 0, 0, 0), (2**64 - 1, 2, 7, 2**40, 3)):
        seed, purpose, epoch, a, b = arguments
        key, counter = np.array([seed, purpose], np.uint64), np.array([0, a, b, epoch], np.uint64)
        plain = np.random.Generator(np.random.Philox(key=key, counter=counter))
        assert np.array_equal(generator(*arguments).random(50), plain.random(50))
    one, other = generator(1, 2, 3), generator(1, 2, 3)
    assert one.random() == other.random(), "two of them share nothing"


def test_a_window_reads_neighbouring_samples() -> None:
    """Few shards are open at a time: a window touches those next to each other in the order of shards."""
    order = Order(first_of([100] * 50), 50, 5, 100, 0)
    touched = [
        len(set(order.samples(0, order.shuffled(0, stream, window)) // 100))
        for stream in range(5)
        for window in range(order.num_windows)
    ]
    assert max(touched) <= 2
    mixed = order.samples(0, order.shuffled(0, 0, 0))
    assert np.abs(np.diff(mixed)).mean() > 20, "not shuffled"


@pytest.mark.parametrize(("batch", "expected"), [(64, 64), (96, 48), (512, 64), (7, 7), (67, 1), (1, 1)])
def test_streams_are_chosen_by_the_batch_alone(batch: int, expected: int) -> None:
    assert Order(first_of([10]), batch, 0, 10, 0).streams == expected


def test_numbers_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"data.streams is 5.*batch of 12 .*1, 2, 3, 4, 6, 12, or 0"):
        Order(first_of([10]), 12, 5, 10, 0)
    with pytest.raises(ValueError, match=r"6 streams .*4 ranks.*multiple of 4.*1, 2, 3, 6 ranks"):
        share(6, 4, 0, 2)


def test_workers_are_lowered_to_what_shares_equally() -> None:
    assert share(12, 2, 1, 4) == (range(6, 12), 3)
    assert share(4, 4, 3, 8) == (range(3, 4), 1)
    assert share(4, 1, 0, 0) == (range(4), 0)


@pytest.mark.parametrize(
    ("batch", "world", "workers", "streams"),
    [
        (64, 1, 2, 64),  # as ever
        (128, 8, 2, 64),
        (512, 64, 2, 128),  # each of the 128 workers has one
        (512, 64, 3, 128),  # 192 do not divide the batch
        (480, 48, 2, 96),
        (72, 8, 2, 24),  # 36 cannot be shared by eight ranks
        (60, 7, 2, 60),  # no number can: `share` says so
        (4, 1, 8, 4),
    ],
)
def test_streams_suffice_for_the_workers_of_all_ranks(batch: int, world: int, workers: int, streams: int) -> None:
    assert choose_streams(batch, world, workers) == streams
