"""The loader on real shards: exact from any position, for any number of ranks and workers; nothing hangs."""

from __future__ import annotations

import os
import signal
import threading
import time
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import webdataset

from tests.loader.examples import Everything, TooLarge, keys, make_shards, open_loader, plain
from trackmill.pipeline.loader.catalog import read_catalog
from trackmill.pipeline.loader.loader import ShardLoader, WorkerDied
from trackmill.pipeline.loader.packing import SharedMemoryFull, pack, unpack
from trackmill.pipeline.shards.tar import BadShard


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return read_catalog(make_shards(str(tmp_path_factory.mktemp("loader") / "data")).root)


def take(loader: ShardLoader, count: int) -> list[list[tuple[Any, ...]]]:
    return [plain(next(loader)) for _ in range(count)]


@pytest.fixture(scope="module")
def undisturbed(catalog: Any) -> list[list[tuple[Any, ...]]]:
    """48 whole batches, read by one process without a break: twelve epochs of 26 samples."""
    return take(open_loader(catalog, 8, streams=4), 48)


@pytest.mark.parametrize(
    ("world", "before", "after"), [(1, 0, 2), (1, 2, 1), (1, 4, 0), (2, 1, 2), (2, 0, 1), (4, 1, 0)]
)
def test_restored_equals_undisturbed(catalog: Any, undisturbed: list[Any], world: int, before: int, after: int) -> None:
    """40 batches, the state, 8 more, as every rank sees them; then resumed, with other workers and other ranks."""
    for rank in range(world):
        mine = [batch[rank * 8 // world : (rank + 1) * 8 // world] for batch in undisturbed]
        loader = open_loader(catalog, 8, streams=4, world=world, rank=rank, workers=before)
        assert take(loader, 40) == mine[:40]
        state = loader.state()
        assert take(loader, 8) == mine[40:]
        loader.close()
        assert state["batches_done"] == 40 and state["epoch"] == 40 // 4
        resumed = open_loader(
            catalog, 8, streams=4, world=world, rank=rank, workers=after, batches_done=state["batches_done"]
        )
        assert take(resumed, 8) == mine[40:]
        resumed.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_joining_ahead_in_a_thread_gives_the_same_batches(catalog: Any, undisturbed: list[Any], workers: int) -> None:
    threads: set[str] = set()

    def joined(examples: list[Any]) -> list[Any]:
        threads.add(threading.current_thread().name)
        return examples

    loader = open_loader(catalog, 8, streams=4, workers=workers, ahead=True, collate=joined)
    assert take(loader, 8) == undisturbed[:8]
    assert loader.state()["batches_done"] == 8, "however far it has read ahead"
    loader.close()
    assert threads == {"collate"}
    assert not any(thread.name == "collate" for thread in threading.enumerate())


def test_an_error_while_joining_ahead_is_raised_where_the_batch_is_asked_for(catalog: Any) -> None:
    count = iter(range(100))

    def joined(examples: list[Any]) -> list[Any]:
        if next(count) == 2:
            raise RuntimeError("cannot be joined")
        return examples

    loader = open_loader(catalog, 8, ahead=True, collate=joined)
    take(loader, 2)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="cannot be joined"):
            next(loader)
    loader.close()


def test_an_epoch_holds_every_sample(catalog: Any) -> None:
    loader = open_loader(catalog, 8, window=3)
    epoch = [key for _ in range(loader.order.batches_per_epoch) for key in keys(next(loader))]
    assert set(epoch) == {catalog.key(sample) for sample in range(len(catalog))}
    assert len(epoch) == 32


def test_partners_are_others_of_the_window(catalog: Any, undisturbed: list[Any]) -> None:
    pairs = [(entry[0], entry[1]) for batch in undisturbed for entry in batch]
    assert all(own != partner for own, partner in pairs)
    assert len({partner for _, partner in pairs}) > 20


def test_one_sample_is_its_own_partner(tmp_path: Path) -> None:
    loader = open_loader(read_catalog(make_shards(str(tmp_path), 1, units=1).root), 4)
    assert all(example["key"] == example["partner"] for example in next(loader))


def test_global_randomness_is_left_alone(catalog: Any) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].tobytes()
    for workers in (0, 1):
        loader = open_loader(catalog, 8, workers=workers)
        next(loader)
        loader.close()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tobytes() == before[1]


def test_waiting_is_counted_and_workers_are_lowered(catalog: Any) -> None:
    loader = open_loader(catalog, 6, streams=3, workers=2)
    assert loader.workers == 1 and "1 instead of 2" in loader.notices[0]
    next(loader)
    assert loader.wait_s > 0
    loader.close()
    loader.close()


class KillsItself(Everything):
    """Dies in the middle of the second batch."""

    calls = 0

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        if self.calls > 12:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(*arguments)


def test_a_worker_that_dies_is_an_error(catalog: Any) -> None:
    loader = open_loader(catalog, 8, workers=2, prefetch=1, make_example=KillsItself())
    with pytest.raises(WorkerDied, match="rank 0: a loader worker was killed"):
        for _ in range(20):
            next(loader)
    loader.close()


def test_a_worker_that_is_killed_while_it_waits_is_an_error(catalog: Any) -> None:
    loader = open_loader(catalog, 8, workers=2)
    next(loader)
    pids = [worker.pid for worker in loader._iterator._workers]
    os.kill(pids[0], signal.SIGKILL)
    with pytest.raises(WorkerDied):
        for _ in range(100):
            next(loader)
    loader.close()
    deadline = time.monotonic() + 60
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
        assert time.monotonic() < deadline, "closing left a worker behind"
        time.sleep(0.05)


def test_a_kill_while_workers_are_started_is_an_error(catalog: Any) -> None:
    """Of the process that they are forked from; the next loader starts another one."""
    forkserver.ensure_running()
    pid = forkserver._forkserver._forkserver_pid
    os.kill(pid, signal.SIGSTOP)
    kill = threading.Timer(1.0, os.kill, (pid, signal.SIGKILL))
    kill.start()
    with pytest.raises(WorkerDied, match="a loader worker was killed or crashed"):
        open_loader(catalog, 8, workers=2)
    kill.join()
    loader = open_loader(catalog, 8, workers=2)
    next(loader)
    loader.close()


class Broken(Everything):
    """A mistake in code, not in data."""

    def __call__(self, *arguments: Any) -> Any:
        raise RuntimeError("a bug of the task")


@pytest.mark.parametrize("workers", [0, 1])
def test_mistakes_in_code_are_not_hidden(catalog: Any, workers: int) -> None:
    loader = open_loader(catalog, 8, workers=workers, make_example=Broken())
    with pytest.raises(RuntimeError, match="a bug of the task"):
        next(loader)
    loader.close()


class Picky(Everything):
    """Refuses about a third of what is drawn, whatever the sample."""

    def __call__(self, sample: Any, rng: np.random.Generator, another: Any) -> Any:
        if rng.random() < 0.3:
            raise BadShard("no box was left in view")
        return super().__call__(sample, rng, another)


def test_examples_that_depend_on_chance_resume_exactly(catalog: Any) -> None:
    options: dict[str, Any] = {"make_example": Picky(), "max_bad": 1.0}
    whole = [keys(next(loader)) for loader in [open_loader(catalog, 8, **options)] for _ in range(12)]
    resumed = open_loader(catalog, 8, batches_done=7, **options)
    assert [keys(next(resumed)) for _ in range(5)] == whole[7:]


def test_shared_memory_without_room_is_said_in_one_sentence(catalog: Any) -> None:
    """Containers have 64 MB of it, unless they ask for more."""
    before = set(Path("/dev/shm").glob("torch_*"))
    loader = open_loader(catalog, 8, make_example=TooLarge(), workers=1)
    with pytest.raises(
        SharedMemoryFull, match=r"/dev/shm is full: a loader worker passes on 32\.0 MB.*--shm-size"
    ) as said:
        next(loader)
    assert "Traceback" not in str(said.value)
    loader.close()
    left = [path for path in Path("/dev/shm").glob("torch_*") if path not in before and not path.stat().st_size]
    assert left == [], "names of blocks that could not be made"


def test_packing_keeps_arrays_and_tensors() -> None:
    part = {
        "array": np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2],
        "empty": np.zeros((0, 4), np.float32),
        "tensor": torch.arange(6).reshape(2, 3).t(),
        "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "scalar": torch.tensor(3.0),
        "text": ["a", None, 2],
    }
    back = unpack(pack(part))
    assert np.array_equal(back["array"], part["array"]) and back["empty"].shape == (0, 4)
    for name in ("tensor", "half", "scalar"):
        assert torch.equal(back[name], part[name]) and back[name].dtype == part[name].dtype
    assert back["text"] == part["text"]
    back["array"][0, 0] = 5  # what arrives can be changed in place


def test_webdataset_reads_the_same(catalog: Any) -> None:
    """The shards are WebDataset's: its own reader gives the same keys and bytes, in the order they lie."""
    read = webdataset.WebDataset(catalog.shard_urls, shardshuffle=False)
    found = [(sample["__key__"], len(sample["jpg"]), sample["json"]) for sample in read]
    assert [key for key, _, _ in found] == [catalog.key(sample) for sample in range(len(catalog))]
    for sample, (key, jpeg_bytes, record) in enumerate(found):
        with open(catalog.shard_urls[int(catalog.shard_of(sample))], "rb") as handle:
            handle.seek(int(catalog.offsets[sample]))
            piece = handle.read(int(catalog.sizes[sample]))
        assert record in piece and key.encode() in piece and jpeg_bytes < len(piece)
