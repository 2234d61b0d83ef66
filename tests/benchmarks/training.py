"""What training costs beside the step itself: waiting for data, Ray Train around the loop, memory by ZeRO stage.

Run it with `python -m tests.benchmarks.training`, when nothing else runs; `--only wait`, `ray` or `zero` for one part.
Each part names what it is compared with: the same steps fed from memory, the same job without Ray, the formula of the
ZeRO paper. Ratios hold on other machines, seconds do not.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import itertools
import json
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor, nn

from tests.faults.training_runs import finish, start_training
from tests.runs import mine
from tests.training.tiny_runs import make_data
from tests.training.tiny_task import SIDE, TinyTask
from trackmill.jobs.train import RECIPES
from trackmill.pipeline.loader.loader import ShardLoader
from trackmill.pipeline.tasks.base import TrainingModule
from trackmill.pipeline.training import loop
from trackmill.pipeline.training.dry_run import memory_estimate
from trackmill.pipeline.training.engines import make_engine
from trackmill.pipeline.training.engines.base import EngineSettings, OptimSettings
from trackmill.pipeline.training.launch import run_local
from trackmill.pipeline.training.parameters import ParameterCount
from trackmill.pipeline.training.recipe_files import load_recipe
from trackmill.pipeline.training.telemetry.lines import read_lines

CPU = torch.device("cpu")
RANKS = 2
WARM_STEPS = 6
"""The first steps of a run, in which workers start and memory is first touched, do not count."""


# Waiting for data


class FromMemory(ShardLoader):
    """Gives its first batches again and again: what the steps take if data cost nothing."""

    HELD = 4

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._held: list[Any] = []

    def __next__(self) -> Any:
        """See `ShardLoader`."""
        if len(self._held) < self.HELD:
            self._held.append(super().__next__())
            return self._held[-1]
        self.batches_done += 1
        return self._held[self.batches_done % self.HELD]


def waiting(folder: Path, data: str, steps: int, repeats: int) -> None:
    """The released recipe of masa_lite0: share of a step that waits, and speed beside the same steps from memory."""
    if not data:
        data = str(folder / "mined")
        mine("--output", data, "--executor", "inline")
    feeds = {"from memory": (FromMemory, 0), "workers = 0": (ShardLoader, 0), "workers = 1": (ShardLoader, 1)}
    found: dict[str, list[tuple[float, float]]] = {feed: [] for feed in feeds}
    for repeat, (feed, (loader, workers)) in itertools.product(range(repeats), feeds.items()):
        changes = {"max_steps": steps, "data": {"url": data, "workers": workers}, "telemetry": {"tensorboard": False}}
        recipe = load_recipe("masa_lite0", changes, RECIPES)
        output = folder / f"{workers}-{loader.__name__}-{repeat}"
        with mock.patch.object(loop, "ShardLoader", loader), contextlib.redirect_stderr(io.StringIO()):
            outcome = run_local(recipe, str(output), device="cpu")
        if outcome.interrupted:
            raise KeyboardInterrupt
        rows = list(read_lines(str(output / "metrics.jsonl")))[WARM_STEPS:]
        seconds = [recipe.data.batch_size / row["samples_per_s"] for row in rows]
        waited = sum(row["data_wait"] * each for row, each in zip(rows, seconds))
        found[feed].append((sum(seconds) / len(rows), waited / len(rows)))
    batch, threads = recipe.data.batch_size, torch.get_num_threads()
    print(f"waiting for data: masa_lite0, {batch} samples a step, {threads} threads, {steps} steps, {repeats} repeats")
    ceilings = [step for step, _ in found["from memory"]]
    for feed, measured in found.items():
        step, wait = min(measured)
        ratio = statistics.median(best / own for best, (own, _) in zip(ceilings, measured))
        print(
            f"  {feed:<12} {batch / step:6.2f} samples/s, {step * 1000:6.0f} ms a step, of which {wait * 1000:5.1f} ms "
            f"({wait / step:6.2%}) wait; {min(ceilings) / step:.3f} of the steps from memory by minima, {ratio:.3f} by "
            "medians"
        )
    made = min(wait for _, wait in found["workers = 0"])
    print(f"  making a batch takes {made / min(ceilings):.3f} of a step, and so many workers keep up with one rank")


# Ray Train's overhead


class ClockedModule(TrainingModule):
    """Tells when each forward pass began, by clocks that all processes of a machine share, and its CPU seconds."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = [layer for _ in range(3) for layer in (nn.Linear(width, width), nn.ReLU())]
        self.network = nn.Sequential(nn.Linear(3 * SIDE**2, width), *hidden, nn.Linear(width, 3))

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """See `TrainingModule.forward`."""
        clock, cpu = time.monotonic(), time.process_time()
        error = self.network(batch["pixels"].flatten(1)) - batch["mean"]
        shown = {"clock": torch.tensor(clock, dtype=torch.float64), "cpu": torch.tensor(cpu, dtype=torch.float64)}
        return {"total": error.square().mean(), **shown}


class ClockedTask(TinyTask):
    """The tiny task with a network that gives one core some work."""

    name = "clocked"

    def build(self, seed: int, read_weights: bool = True) -> ClockedModule:
        """See `Task.build`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return ClockedModule(self._model.width)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one run.

    Args:
        step: mean from one forward pass to the next, with all that lies between: data, telemetry, checkpoints.
        middle: their median, without checkpoints therefore.
        cpu: of the rank's process for a step, with the threads of Ray in it.
        before, after: from the command to the first pass, and from the last one to the end.
    """

    step: float
    middle: float
    cpu: float
    before: float
    after: float


def clocked_run(folder: Path, recipe: Path, data: str, launcher: str) -> Timing:
    """Start the job as people do, on one rank of one thread, and read the clocks it left in metrics.jsonl."""
    began = time.monotonic()
    arguments = ("--recipe", recipe, "--data", data, "--output", folder, "--device", "cpu")
    # Ray looks after its workers as often as it does by default, not as often as tests ask it to.
    interval = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "2"}
    launch = ("--launcher", launcher, "--num-workers", 1)
    finish(start_training(*arguments, *launch, **interval))
    ended = time.monotonic()
    rows = list(read_lines(str(folder / "metrics.jsonl")))
    clocks = [row["clock"] for row in rows]
    warm = clocks[WARM_STEPS:]
    return Timing(
        step=(warm[-1] - warm[0]) / (len(warm) - 1),
        middle=statistics.median(after - before for before, after in itertools.pairwise(warm)),
        cpu=(rows[-1]["cpu"] - rows[WARM_STEPS]["cpu"]) / (len(warm) - 1),
        before=clocks[0] - began,
        after=ended - clocks[-1],
    )


def ray_overhead(folder: Path, steps: int, every: int, repeats: int) -> None:
    """The same job with both launchers in turn."""
    folder.mkdir()
    data, recipe = make_data(folder / "data", num_images=32), folder / "clocked.toml"
    recipe.write_text(
        'task = "tests.benchmarks.training:ClockedTask"\n'
        "[model]\nwidth = 1024\n[data]\nbatch_size = 32\nworkers = 0\n[optim]\nlr = 0.001\n"
        f"[schedule]\nsteps = {steps}\nwarmup_steps = 0\nmilestones = []\n[checkpoint]\nevery = {every}\n"
        "[telemetry]\nevery = 10\ntensorboard = false\n"
    )
    found: dict[str, list[Timing]] = {"local": [], "ray": []}
    for repeat, launcher in itertools.product(range(repeats), found):
        found[launcher].append(clocked_run(folder / f"{launcher}-{repeat}", recipe, data, launcher))
    plain = found["local"]
    print(
        f"Ray Train around the loop: {steps} steps of one rank on one thread, a checkpoint reported every {every}, "
        f"{repeats} repeats in turn. In brackets: of the plain loop, by minima and by medians of neighbours"
    )
    print("  step: the mean one, with all between two; middle: the median one; cpu: of the rank's process, for a step")
    for launcher, runs in found.items():
        shown = []
        for name in ("step", "middle", "cpu"):
            here, there = ([getattr(run, name) for run in each] for each in (runs, plain))
            ratio = statistics.median(own / best for own, best in zip(here, there))
            shown.append(f"{name} {min(here) * 1000:.2f} ms ({min(here) / min(there):.3f}, {ratio:.3f})")
        before, after = min(run.before for run in runs), min(run.after for run in runs)
        print(
            f"  {launcher:<5} " + ", ".join(shown) + f"; {before:.1f} s before the first step, {after:.1f} s after all"
        )


# Memory by ZeRO stage

STATE = ("weights", "gradients", "optimiser")
MOMENTS = ("in the backward", "before the step", "after the step")
"""Deep in a backward pass where most is held, and around the step of the optimiser."""
ENGINES = {"torch DDP": EngineSettings(name="torch")} | {
    f"ZeRO-{stage}": EngineSettings(name="deepspeed", zero_stage=stage)  # type: ignore[arg-type]
    for stage in range(4)
}
ADAMW = OptimSettings(name="adamw", lr=1e-3)


class Layers(TrainingModule):
    """Eight square layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.network = nn.Sequential(*(nn.Linear(width, width) for _ in range(8)))

    def forward(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """See `TrainingModule.forward`."""
        return {"total": self.network(batch).square().mean()}


class Census:
    """Counts what this process holds in tensors since it was made, each storage once.

    Tensors are found by the garbage collector, so none is missed for want of knowing its name, and with them their
    gradients, which only C++ knows.
    """

    def __init__(self) -> None:
        self._before = set(_storages(_all_tensors()))

    def count(self, engine: Any) -> dict[str, int]:
        """Bytes by `STATE`, of the `buckets` through which DeepSpeed sends gradients, which may lie in them, and of
        the `rest`.
        """
        zero = getattr(engine._parallel, "optimizer", None)
        parameters = list(engine.module.parameters())
        masters = ("single_partition_of_fp32_groups", "fp32_partitioned_groups_flat")
        buckets = getattr(zero, "ipg_buckets", {}).values()
        gradients = ("averaged_gradients", "grad_partitions_flat_buffer")
        known = {
            "weights": [*parameters, *(getattr(each, "ds_tensor", None) for each in parameters)],
            "optimiser": [*(getattr(zero, name, None) for name in masters), engine._optimizer.state],
            "buckets": [bucket.buffer for bucket in buckets],
            "gradients": [
                *(each.grad for each in _all_tensors() if each.is_leaf),
                *(getattr(zero, name, None) for name in gradients),
            ],
            "rest": _all_tensors(),
        }
        # A storage of several kinds is of the first of them.
        seen, sums = set(self._before), {}
        for kind, values in known.items():
            storages = {place: size for place, size in _storages(_tensors_in(values)).items() if place not in seen}
            seen.update(storages)
            sums[kind] = sum(storages.values())
        return sums


def _all_tensors() -> list[Tensor]:
    return [each for each in gc.get_objects() if issubclass(type(each), Tensor)]


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Size in bytes by address."""
    storages = (each.untyped_storage() for each in tensors)
    return {each.data_ptr(): each.nbytes() for each in storages if each.nbytes()}


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors_in(each)


def memory_of_a_rank(rank: int, name: str, width: int, folder: str) -> None:
    """Two steps; leaves in a file what was held at the `MOMENTS` of the second, as `Census` counts."""
    torch.set_num_threads(1)
    os.environ.update(LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(RANKS))
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    store = dist.FileStore(f"{folder}/store", RANKS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS, timeout=timedelta(minutes=8))
    batch, generator = torch.randn(8, width), torch.Generator()
    census, counts = Census(), {}
    module = Layers(width)
    engine = make_engine(module, ENGINES[name], ADAMW, CPU, rank, RANKS)
    passes: list[dict[str, int]] = []
    for each in module.parameters():
        each.register_post_accumulate_grad_hook(lambda parameter: passes.append(census.count(engine)))
    for _ in range(2):
        passes.clear()
        engine.backward(engine.forward(batch, generator)["total"], last=True)
        gc.collect()
        counts["in the backward"] = max(passes, key=lambda held: sum(held.values()))
        counts["before the step"] = census.count(engine)
        engine.step(ADAMW.lr)
    gc.collect()
    counts["after the step"] = census.count(engine)
    Path(folder, f"{rank}.json").write_text(json.dumps(counts))
    engine.close()
    dist.destroy_process_group()


def memory(folder: Path, width: int, names: Iterable[str]) -> None:
    """Every engine on ranks of its own."""
    number = sum(each.numel() for each in Layers(width).parameters())
    part = ParameterCount(part="network", parameters=number, trainable=number)
    multiprocessing.set_forkserver_preload(["__main__", "torch._dynamo"])
    print(
        f"memory of a rank: {number:,} trained parameters, AdamW, float32, {RANKS} gloo ranks; bytes a parameter, "
        "beside the formula of ZeRO, which `--dry-run` tells"
    )
    for name in names:
        place = folder / name
        place.mkdir(parents=True)
        multiprocessing.start_processes(
            memory_of_a_rank, args=(name, width, str(place)), nprocs=RANKS, start_method="forkserver"
        )
        ranks = [json.loads((place / f"{rank}.json").read_text()) for rank in range(RANKS)]
        # The rank that holds most decides whether it fits.
        most = max(ranks, key=lambda counts: sum(counts["in the backward"].values()))
        formula = sum(memory_estimate((part,), ENGINES[name], ADAMW, False, RANKS).values()) / number
        print(f"  {name}: formula {formula:.2f}")
        for moment in MOMENTS:
            held = {kind: size / number for kind, size in most[moment].items()}
            state = sum(held[kind] for kind in STATE)
            shown = " + ".join(f"{kind} {held[kind]:.2f}" for kind in STATE)
            print(
                f"    {moment:<17} {state:5.2f} = {shown}; {state / formula:.3f} of the formula; buckets "
                f"{most[moment]['buckets'] / 1e6:,.1f} MB, other tensors {most[moment]['rest'] / 1e6:,.1f} MB",
                flush=True,
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["wait", "ray", "zero"], help="one part alone")
    parser.add_argument("--data", default="", help="wait: a mined data set; without it, packaged media are mined")
    parser.add_argument("--wait-steps", type=int, default=26)
    parser.add_argument("--wait-repeats", type=int, default=3)
    parser.add_argument("--ray-steps", type=int, default=400)
    parser.add_argument("--ray-checkpoint-every", type=int, default=100)
    parser.add_argument("--ray-repeats", type=int, default=5)
    parser.add_argument("--width", type=int, default=512, help="zero: of each of eight layers")
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES), help="zero: which")
    options = parser.parse_args()
    print(f"load of this machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.only in (None, "wait"):
            waiting(folder / "wait", options.data, options.wait_steps, options.wait_repeats)
        if options.only in (None, "ray"):
            ray_overhead(folder / "ray", options.ray_steps, options.ray_checkpoint_every, options.ray_repeats)
        if options.only in (None, "zero"):
            memory(folder / "zero", options.width, options.engines)


if __name__ == "__main__":
    from tests.benchmarks import training  # by its name, under which ranks find the classes

    training.main()
