"""What a run will be, found out before anything is started: settings, data, checkpoint and room are checked here."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trackmill.pipeline.console.disk_space import too_little_disk_space, too_little_shared_memory
from trackmill.pipeline.loader.catalog import Catalog, read_catalog
from trackmill.pipeline.loader.order import Order, choose_streams, share
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.unfinished import unfinished_units
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.documents import DamagedDocument, publish_document
from trackmill.pipeline.storage.urls import canonical, join
from trackmill.pipeline.tasks.base import Task, TrainingModule
from trackmill.pipeline.training import changes, saved_checkpoint
from trackmill.pipeline.training.loop import data_identity, total_steps
from trackmill.pipeline.training.output_folder import check_output
from trackmill.pipeline.training.parameters import (
    GroupCount,
    ParameterCount,
    count_groups,
    count_parameters,
    outline,
)
from trackmill.pipeline.training.recipe import Recipe, effective, for_data, make_task, stored_recipe
from trackmill.pipeline.training.result import ResultCard, is_whole, read_card, result_url
from trackmill.pipeline.training.saved_checkpoint import SavedCheckpoint
from trackmill.pipeline.training.telemetry import require_packages
from trackmill.schemas.config import ConfigError
from trackmill.schemas.errors import MissingPackage, StorageError
from trackmill.schemas.install import install

RESUME = ("auto", "never")


@dataclass(frozen=True, kw_only=True)
class BuiltTask:
    """A task with its module, weights included, which was built in this process and not trained yet."""

    task: Task
    module: TrainingModule


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What a run will be, as far as it is known before anything is started.

    Args:
        recipe: the settings; the schedule is in steps.
        output: root of the run, spelt in full.
        catalog: the data set, which is open.
        parameters: by part of the network.
        groups: of the optimiser.
        start: where it goes on; None to begin.
        total_steps: steps of the whole run.
        finished: all of them are done, and the result is there.
        notices: what people should know before it starts.
        built: the task with its starting weights, for whoever trains in this process: so their files are read once.
            None where the run goes on from a checkpoint, or nothing was to be built.
    """

    recipe: Recipe
    output: str
    catalog: Catalog
    parameters: tuple[ParameterCount, ...]
    groups: tuple[GroupCount, ...]
    start: SavedCheckpoint | None
    total_steps: int
    finished: bool
    built: BuiltTask | None
    notices: tuple[str, ...] = ()


def prepare_training(
    recipe: Recipe,
    output: str,
    ranks: int,
    resume: str = "auto",
    build: bool = True,
    allowed: Sequence[str] = (),
) -> TrainingPlan:
    """Check all that can be checked without a worker; writes nothing.

    Weights that a run begins with are read here, so that a wrong file is known before a GPU is waited for. A run that
    goes on was through that; its frozen weights are read and checked by the ranks.

    Args:
        recipe: settings.
        output: root of the run.
        ranks: how many there will be.
        resume: `auto`: go on from the newest whole checkpoint, if any; `never`: there must be none; or the URL of a
            checkpoint.
        allowed: what may differ from the checkpoint, see `changes.check_fits`.
        build: whether the module is built, where the run begins anew; it is counted without memory otherwise.

    Raises:
        ValueError: settings do not fit each other, the data, the checkpoint or the number of ranks.
        OSError: the data set, the weights or the checkpoint cannot be read, or there is no room for a checkpoint.
    """
    output = canonical(output)
    if not recipe.data.url:
        raise ConfigError("no data set: give --data URL, the root of what jobs/mine_proposals.py wrote")
    check_output(output, recipe.data.url)
    task = make_task(recipe)
    everything = read_catalog(recipe.data.url, task.needs_boxes())
    catalog = task.usable(everything)
    recipe = for_data(recipe, len(catalog))
    task.scheduled(recipe.schedule.steps, recipe.optim.accumulate)
    identity = data_identity(catalog, task)
    start = starting_point(output, resume, thorough=False)
    check_batch(recipe, catalog, ranks, saved_checkpoint.stored_streams(start, recipe.micro_batch))
    if start is not None:
        changes.check_fits(start, *effective(recipe), identity, allowed)
    total = total_steps(recipe)
    card, notices = _card(output)
    finished = start is not None and start.step >= total and card is not None and card.step == start.step
    if finished and card is not None and not is_whole(output, card):
        finished = False
        notices.append(f"{redact(result_url(output))} is not what its card says: this run writes it again")
    require_packages(recipe.telemetry)
    if unused := len(everything) - catalog.num_distinct:
        notices.append(f"{unused:,} of {len(everything):,} samples are nothing that {task.name} learns from")
    evaluation = task.evaluation()
    if evaluation is not None and not finished:
        evaluation.check()
    if recipe.engine.name == "deepspeed" and recipe.engine.zero_stage == 3 and task.without_zero_3:
        raise ConfigError(f"engine.zero_stage = 3: {task.without_zero_3}; set it to 2")
    if recipe.engine.name == "deepspeed" and importlib.util.find_spec("deepspeed") is None:
        raise MissingPackage(f"engine deepspeed needs a package that is not installed: {install('deepspeed')}")
    built = BuiltTask(task=task, module=task.build(recipe.seed)) if start is None and build else None
    module = built.module if built is not None else outline(task, recipe.seed)
    parameters = count_parameters(module)
    if not finished:
        notices += _check_room(recipe, output, parameters)
    return TrainingPlan(
        recipe=recipe,
        output=output,
        catalog=catalog,
        parameters=parameters,
        groups=count_groups(module, recipe.optim),
        start=start,
        total_steps=total,
        finished=finished,
        built=built,
        notices=(*notices, *_notices(recipe, catalog, ranks)),
    )


def _card(output: str) -> tuple[ResultCard | None, list[str]]:
    """The card of the run's result, and what people should know of it."""
    try:
        return read_card(output), []
    except DamagedDocument as error:
        return None, [f"{error}; this run writes it again"]


def _check_room(recipe: Recipe, output: str, parameters: Sequence[ParameterCount]) -> list[str]:
    """Whether checkpoints will fit: not even one is an error, fewer than will lie there are worth a line."""
    copies = 1 + (2 if recipe.optim.name == "adamw" else 1) + bool(recipe.ema.decay)
    one = 4 * copies * sum(each.trainable for each in parameters)  # float32
    if said := too_little_disk_space(output, one, "a checkpoint"):
        raise StorageError(f"{said}; free some, or give another --output")
    # The new one is whole before the oldest goes.
    most = recipe.checkpoint.keep + 1
    said = too_little_disk_space(
        output, most * one, f"a run that keeps {recipe.checkpoint.keep} checkpoints (checkpoint.keep)"
    )
    return [said] if said else []


def _notices(recipe: Recipe, catalog: Catalog, ranks: int) -> Iterator[str]:
    """What people may not have meant."""
    if ranks > 1 and (said := too_little_shared_memory()):
        yield f"{said}; ranks of one machine exchange gradients there too"
    steps = recipe.schedule.steps
    if recipe.max_steps > steps:
        yield (
            f"max_steps is {recipe.max_steps:,}, but the schedule ends after {steps:,} steps, and so does the run: set "
            "schedule.steps for more (a run that goes on needs --allow-changed schedule.steps for that)"
        )
    left, planned = unfinished_units(Layout(catalog.url))
    if left:
        yield (
            f"{left:,} of {planned:,} units of {redact(catalog.url)} are not mined yet, so only a part of the data is "
            "trained on: finish mining first (a run that goes on with more data needs --allow-changed data)"
        )


def begin(plan: TrainingPlan) -> None:
    """Write `config.json`, the resolved recipe: the first thing in the output, which shows that it can be written to.

    Raises:
        OSError: it cannot.
    """
    publish_document(join(plan.output, "config.json"), stored_recipe(plan.recipe))


def check_batch(recipe: Recipe, catalog: Catalog, ranks: int, streams: int = 0) -> Order:
    """The order of samples, if the batch can be cut for accumulation, ranks and streams.

    Args:
        recipe, catalog, ranks: see `prepare_training`.
        streams: with which the run began, see `saved_checkpoint.stored_streams`.

    Raises:
        ConfigError: it cannot; says which numbers fit.
    """
    batch, accumulate = recipe.data.batch_size, recipe.optim.accumulate
    if batch % accumulate:
        raise ConfigError(f"data.batch_size is {batch}, which optim.accumulate = {accumulate} does not divide")
    micro = batch // accumulate
    if micro % ranks:
        raise ConfigError(
            f"a batch of {micro} samples (data.batch_size / optim.accumulate) cannot be shared by {ranks} ranks; "
            f"make data.batch_size a multiple of {accumulate * ranks}"
        )
    data = recipe.data
    order = Order(
        catalog.first,
        micro,
        data.streams or streams or choose_streams(micro, ranks, data.workers),
        data.window,
        recipe.seed,
    )
    share(order.streams, ranks, 0, data.workers)
    return order


def starting_point(output: str, resume: str, thorough: bool = True) -> SavedCheckpoint | None:
    """The checkpoint to go on from.

    A checkpoint given by its URL is where a run begins; when that run is started again, its own newer ones win.

    Args:
        output: root of the run.
        resume: see `prepare_training`.
        thorough: whether every byte is checked.

    Raises:
        ConfigError: `never`, and there is a checkpoint.
        FileNotFoundError: no checkpoint at the URL.
        DamagedCheckpoint: none is whole.
    """
    if resume not in RESUME:
        given = saved_checkpoint.open_checkpoint(canonical(resume), thorough)
        if given.url.startswith(join(output, "checkpoints")):
            return given  # set back on purpose
        own = saved_checkpoint.find(output, thorough)
        return own if own is not None and own.step > given.step else given
    own = saved_checkpoint.find(output, thorough)
    if own is not None and resume == "never":
        raise ConfigError(
            f"{redact(output)} holds a run of {own.step} steps already; go on with --resume auto, or give another "
            "--output"
        )
    return own
