"""What a run would take: parameters, memory, steps, and the time of a step, measured. Writes nothing."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator

import torch

from trackmill.pipeline.console.words import duration, readable_bytes
from trackmill.pipeline.loader.loader import ShardLoader
from trackmill.pipeline.training.engines import make_engine
from trackmill.pipeline.training.engines.base import EngineSettings, OptimSettings
from trackmill.pipeline.training.engines.optimiser import moment_kinds
from trackmill.pipeline.training.launch import TrainingPlan
from trackmill.pipeline.training.parameters import GroupCount, ParameterCount
from trackmill.pipeline.training.recipe import make_task
from trackmill.pipeline.training.schedule import learning_rate
from trackmill.pipeline.training.steps import peak_memory, run_step

MEASURED_STEPS = 4
"""The first of them, in which workers start and kernels are chosen, does not count."""


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


def dry_run(plan: TrainingPlan, ranks: int, device: torch.device) -> Iterator[str]:
    """Lines for people; a few steps are taken on one rank's share of the batch and forgotten."""
    yield from describe_run(plan, ranks)
    recipe = plan.recipe
    memory = memory_estimate(plan.parameters, recipe.engine, recipe.optim, bool(recipe.ema.decay), ranks)
    by_use = ", ".join(f"{name} {readable_bytes(size)}" for name, size in memory.items() if size)
    yield f"memory of each rank without activations: {readable_bytes(sum(memory.values()))} ({by_use})"
    seconds, peak = measure_steps(plan, ranks, device)
    yield (
        f"a step takes {seconds:.2f} s, measured on {device} with the share of one of {ranks} ranks, and "
        f"{readable_bytes(round(peak))} at its peak"
    )
    left = plan.total_steps - (plan.start.step if plan.start else 0)
    yield f"{left:,} steps to do: about {duration(left * seconds)}"


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


def measure_steps(plan: TrainingPlan, ranks: int, device: torch.device) -> tuple[float, float]:
    """Seconds of a step (the median) and the peak of memory in bytes, on this device with plain torch.

    The module that the plan holds is trained for that, so it cannot begin a run afterwards.
    """
    recipe = plan.recipe
    built = plan.built
    task = built.task if built is not None else make_task(recipe)
    module = (built.module if built is not None else task.build(recipe.seed)).to(device)
    # Alone and without ZeRO: a step's time is that of its forward and backward pass.
    settings = recipe.engine.model_copy(update={"name": "torch"})
    with contextlib.ExitStack() as stack:
        engine = make_engine(module, settings, recipe.optim, device, 0, 1)
        stack.callback(engine.close)
        loader = ShardLoader(
            plan.catalog,
            recipe.data.model_copy(update={"cache": ""}),
            batch_size=recipe.data.batch_size // recipe.optim.accumulate,
            make_example=task.make_example(),
            collate=task.collate,
            rank=0,
            world=ranks,
            seed=recipe.seed,
            batches_done=0,
        )
        stack.callback(loader.close)
        batches, times = iter(loader), []
        for step in range(MEASURED_STEPS):
            began = time.perf_counter()
            run_step(
                engine,
                batches,
                seed=recipe.seed,
                step=step,
                rank=0,
                accumulate=recipe.optim.accumulate,
                lr=learning_rate(step, recipe.schedule, recipe.optim.lr),
                stage=lambda name, step: None,
            )
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - began)
    return statistics.median(times[1:]), peak_memory(device)


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
