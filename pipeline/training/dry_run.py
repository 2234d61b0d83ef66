"""What a run would take: parameters, memory, steps, and the time of a step, measured. Writes nothing."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from trackmill.pipeline.console.words import duration, readable_bytes
from trackmill.pipeline.loader.contract import MakesByEpoch
from trackmill.pipeline.loader.loader import ShardLoader
from trackmill.pipeline.tasks.base import Task
from trackmill.pipeline.training.engines import make_engine
from trackmill.pipeline.training.engines.base import Engine, EngineSettings, OptimSettings
from trackmill.pipeline.training.engines.optimiser import moment_kinds
from trackmill.pipeline.training.free_memory import PeakMemory, at_most, free_memory, is_out_of_memory
from trackmill.pipeline.training.parameters import GroupCount, ParameterCount
from trackmill.pipeline.training.prepare import TrainingPlan
from trackmill.pipeline.training.recipe import make_task
from trackmill.pipeline.training.schedule import learning_rate
from trackmill.pipeline.training.steps import peak_memory, run_step

MEASURED_STEPS = 4
"""The first of them, in which workers start and kernels are chosen, does not count."""
LONGEST_S = 120.0
"""On a CPU no more samples are measured than take so long, since their time grows with their number."""


def describe_run(plan: TrainingPlan, ranks: int) -> Iterator[str]:
    """Lines for people that need no step to be taken."""
    recipe, catalog = plan.recipe, plan.catalog
    batch, total = recipe.data.batch_size, plan.total_steps
    epochs = total * batch / len(catalog)
    yield f"data: {len(catalog):,} samples in {len(catalog.shards):,} shards (fingerprint {catalog.fingerprint[:16]})"
    yield (
        f"steps: {total:,} of {batch} samples, {total * batch:,} samples or {epochs:,.2f} epochs; "
        f"{ranks} ranks, engine {recipe.engine.name}, {recipe.engine.precision}"
    )
    all_, some = _sums(plan.parameters)
    by_part = ", ".join(f"{each.part}: {_share(each)}" for each in plan.parameters)
    yield f"parameters: {all_:,}, of which {some:,} are trained ({by_part})"
    if recipe.optim.groups:
        for group in plan.groups:
            yield f"  {_group(group)}"
    for notice in plan.notices:
        yield f"note: {notice}"


def dry_run(plan: TrainingPlan, ranks: int, device: torch.device) -> Iterator[str]:
    """Lines for people: first what can be counted, then what some steps took that are forgotten again.

    Measuring never takes more than half of the memory that is free when it begins: where one rank's share of a batch
    needs more, fewer samples are measured, or none.

    Args:
        plan: of `prepare_training`; without a module, so that nothing is read before the first line.
        ranks: how many there will be.
        device: to measure on.

    Raises:
        ValueError: weights do not fit.
        OSError: they cannot be read.
    """
    yield from describe_run(plan, ranks)
    recipe = plan.recipe
    memory = memory_estimate(plan.parameters, recipe.engine, recipe.optim, bool(recipe.ema.decay), ranks)
    by_use = ", ".join(f"{name} {readable_bytes(size)}" for name, size in memory.items() if size)
    yield f"memory of each rank without activations: {readable_bytes(sum(memory.values()))} ({by_use})"
    share = recipe.data.batch_size // recipe.optim.accumulate // ranks
    budget = free_memory(device) // 2
    half = f"{readable_bytes(budget)}, half of the memory that is free"
    alone = recipe.engine.model_copy(update={"name": "torch"})
    needed = sum(memory_estimate(plan.parameters, alone, recipe.optim, False, 1).values())
    if needed > budget:
        yield f"a step is not measured: without activations alone it takes {readable_bytes(needed)}, of at most {half}"
        return
    try:
        with at_most(device, budget):
            measured = measure_steps(plan, ranks, device, budget)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        less = "" if recipe.engine.activation_checkpointing else "; less with engine.activation_checkpointing = true"
        yield f"a step could not be measured: a single example takes more than {half}{less}"
        return
    whose = f"the share of one of {ranks} ranks"
    if measured.samples < share:
        whose = f"{measured.samples} of the {share} samples in {whose}: more would take more than {half}, or minutes"
    grown = f", examples as in epoch {measured.epoch} (from 0), the last, since they change" if measured.epoch else ""
    yield (
        f"a step takes {measured.seconds:.2f} s, measured on {device} with {whose}{grown}, and "
        f"{readable_bytes(round(measured.peak))} at its peak"
    )
    left = plan.total_steps - (plan.start.step if plan.start else 0)
    about = "at most about" if measured.epoch else "about"
    yield f"{left:,} steps to do: {about} {duration(left * measured.seconds * share / measured.samples)}"


def memory_estimate(
    counts: tuple[ParameterCount, ...], engine: EngineSettings, optim: OptimSettings, averaged: bool, ranks: int
) -> dict[str, int]:
    """Bytes that one rank holds all the time, by what they are for; everything is float32.

    ZeRO (Rajbhandari et al. 2020, section 5) spreads over ranks the optimiser's state from stage 1 on, the gradients
    from stage 2 on and the weights from stage 3 on; DeepSpeed holds a flat copy of trained weights beside the state.
    """
    all_, some = _sums(counts)
    deepspeed = engine.name == "deepspeed"
    stage = engine.zero_stage if deepspeed else 0

    def spread(number: int, from_stage: int) -> int:
        return 4 * (-(-number // ranks) if stage >= from_stage else number)

    return {
        "weights": spread(all_, 3),
        "gradients": spread(some, 2),
        "optimiser": len(moment_kinds(optim)) * spread(some, 1) + (spread(some, 1) if stage else 0),
        "average": 4 * some if averaged else 0,
    }


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What some steps took.

    Args:
        seconds: of a step, the median.
        peak: most bytes held.
        samples: of each micro batch.
        epoch: whose examples they were: the last one's where examples change with it, as clips that grow longer.
    """

    seconds: float
    peak: float
    samples: int
    epoch: int


def measure_steps(plan: TrainingPlan, ranks: int, device: torch.device, budget: int) -> Measured:
    """Take steps with plain torch, with as many samples as fit.

    The module that the plan holds is trained for that, so it cannot begin a run afterwards.

    Args:
        plan, ranks, device: see `dry_run`.
        budget: bytes that may be taken.

    Raises:
        MemoryError, RuntimeError: not even the least number fits, see `is_out_of_memory`.
    """
    recipe = plan.recipe
    built = plan.built
    task = built.task if built is not None else make_task(recipe)
    task.scheduled(recipe.schedule.steps, recipe.optim.accumulate)
    used = PeakMemory(device)
    module = (built.module if built is not None else task.build(recipe.seed)).to(device)
    budget -= used.grown()
    # Alone and without ZeRO: a step's time is that of its forward and backward pass.
    settings = recipe.engine.model_copy(update={"name": "torch"})
    with contextlib.ExitStack() as stack:
        engine = make_engine(module, settings, recipe.optim, device, 0, 1)
        stack.callback(engine.close)
        steps = _Steps(plan, task, engine, ranks)
        share = recipe.data.batch_size // recipe.optim.accumulate // ranks
        samples = share
        if share > 1:
            few = 1
            peak = PeakMemory(device)
            try:
                (seconds,) = steps.take(few, 1, workers=0)
            except ValueError:  # a single sample is too few for batch norm, where it has one value a channel
                few = 2
                (seconds,) = steps.take(few, 1, workers=0)
            fit = few * budget // max(1, peak.grown())
            if device.type == "cpu":  # kernels of a GPU are chosen in the first step, so its time says little
                if seconds > LONGEST_S / MEASURED_STEPS:
                    return Measured(seconds=seconds, peak=peak_memory(device), samples=few, epoch=steps.epoch)
                fit = min(fit, int(few * LONGEST_S / MEASURED_STEPS / seconds))
            samples = max(few, min(share, fit))
        while True:
            try:
                times = steps.take(samples, MEASURED_STEPS, workers=recipe.data.workers)
                seconds = statistics.median(times[1:])
                return Measured(seconds=seconds, peak=peak_memory(device), samples=samples, epoch=steps.epoch)
            except Exception as error:
                if samples == 1 or not is_out_of_memory(error):
                    raise
            samples //= 2


class _Steps:
    def __init__(self, plan: TrainingPlan, task: Task, engine: Engine, ranks: int) -> None:
        self.plan, self.task, self.engine, self.ranks = plan, task, engine, ranks
        self.epoch = 0
        if isinstance(task.make_example(), MakesByEpoch):
            self.epoch = max(0, plan.total_steps * plan.recipe.data.batch_size - 1) // len(plan.catalog)

    def take(self, samples: int, count: int, workers: int) -> list[float]:
        """Seconds of each of some steps with so many samples of one rank in a micro batch."""
        recipe = self.plan.recipe
        batch = samples * self.ranks
        changes: dict[str, Any] = {"cache": "", "workers": workers}
        if batch != recipe.data.batch_size // recipe.optim.accumulate:
            changes["streams"] = self.ranks  # those of the recipe may not divide it
        loader = ShardLoader(
            self.plan.catalog,
            recipe.data.model_copy(update=changes),
            batch_size=batch,
            make_example=self.task.make_example(),
            collate=self.task.collate,
            rank=0,
            world=self.ranks,
            seed=recipe.seed,
            batches_done=self.epoch * -(-len(self.plan.catalog) // batch),
        )
        with contextlib.closing(loader):
            batches, times = iter(loader), []
            for step in range(count):
                began = time.perf_counter()
                run_step(
                    self.engine,
                    batches,
                    seed=recipe.seed,
                    step=step,
                    rank=0,
                    accumulate=recipe.optim.accumulate,
                    lr=learning_rate(step, recipe.schedule, recipe.optim.lr),
                    stage=lambda name, step: None,
                )
                if self.engine.device.type == "cuda":
                    torch.cuda.synchronize(self.engine.device)
                times.append(time.perf_counter() - began)
        return times


def _sums(counts: tuple[ParameterCount, ...]) -> tuple[int, int]:
    return sum(each.parameters for each in counts), sum(each.trainable for each in counts)


def _share(count: ParameterCount) -> str:
    if count.trainable == count.parameters:
        return f"{count.parameters:,}"
    return f"{count.parameters:,} frozen" if not count.trainable else f"{count.trainable:,} of {count.parameters:,}"


def _group(group: GroupCount) -> str:
    which = f"optim.groups {group.match!r}" if group.match else "all others"
    return (
        f"{which}: {group.tensors:,} tensors, {group.parameters:,} parameters, lr x {group.lr_factor:g}, "
        f"weight decay {group.weight_decay:g}"
    )
