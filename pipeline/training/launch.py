"""Starting a run: one process trains, or each of those that torchrun or Ray started. `prepare` has checked everything
before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trackmill.pipeline.loader.catalog import read_catalog
from trackmill.pipeline.loader.loader import keep_memory
from trackmill.pipeline.storage.urls import canonical
from trackmill.pipeline.training import changes
from trackmill.pipeline.training.loop import TrainingResult, data_identity, train
from trackmill.pipeline.training.prepare import BuiltTask, starting_point
from trackmill.pipeline.training.rank_process import find_device, process_group
from trackmill.pipeline.training.ranks import on_first_rank, telling_who_is_gone
from trackmill.pipeline.training.recipe import Recipe, effective, for_data, make_recipe, make_task
from trackmill.pipeline.training.saved_checkpoint import SavedCheckpoint
from trackmill.pipeline.training.stopping import stop_on_signals
from trackmill.schemas.errors import JobError


class RunFailed(JobError):
    """Ranks failed for good; the text says which and why. The same command goes on from the last checkpoint."""


@telling_who_is_gone()
def worker(
    values: Mapping[str, Any],
    output: str,
    *,
    device: str = "auto",
    resume: str = "auto",
    allowed: Sequence[str] = (),
    built: BuiltTask | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_checkpoint: Callable[[str, int], None] | None = None,
    notice: Callable[[str], None] = lambda line: None,
) -> TrainingResult:
    """Train as one rank. With several, each calls it in its own process, with the process group made.

    Args:
        values: the recipe as plain values (`Recipe.model_dump()`), fit to be sent to another machine.
        output: root of the run.
        device: `auto`, `cpu`, `cuda` or `cuda:1`; plain `cuda` is the one of this rank's place on its machine.
        resume: `auto` or the URL of a checkpoint. A worker that is started anew after a failure gets the same.
        allowed: see `prepare_training`.
        built: of `prepare_training`, where that ran in this process; otherwise the task is built here.
        should_stop: called after every step, see `train`.
        on_checkpoint: called on every rank after each save, see `train`.
        notice: called on every rank with a line about each checkpoint that was passed over.
    """
    recipe = make_recipe(values, "recipe")
    place = find_device(device)
    if place.type == "cpu":
        keep_memory()  # or else the kernel clears the memory of every layer's output anew
    task = built.task if built is not None else make_task(recipe)
    catalog = task.usable(read_catalog(recipe.data.url, task.needs_boxes()))
    recipe = for_data(recipe, len(catalog))
    task.scheduled(recipe.schedule.steps, recipe.optim.accumulate)

    def choose() -> tuple[SavedCheckpoint | None, list[dict[str, Any]]]:
        chosen = starting_point(canonical(output), resume)
        if chosen is None:
            return None, []
        found = changes.check_fits(chosen, *effective(recipe), data_identity(catalog, task), allowed)
        return chosen, changes.history_of(chosen, found)

    # Rank 0 chooses for all: storage may show another rank a checkpoint later, or not any more.
    start, history = on_first_rank(choose)
    for damage in start.damaged if start is not None else ():
        notice(f"passed over a checkpoint: {damage}")
    return train(
        recipe,
        task,
        catalog,
        canonical(output),
        place,
        module=built.module if built is not None else None,
        start=start,
        history=history,
        should_stop=should_stop,
        on_checkpoint=on_checkpoint,
    )


def run_local(
    recipe: Recipe,
    output: str,
    *,
    device: str = "auto",
    resume: str = "auto",
    allowed: Sequence[str] = (),
    built: BuiltTask | None = None,
    notice: Callable[[str], None] = lambda line: None,
) -> TrainingResult:
    """Train in this process, without Ray; as one of several, where torchrun has started it.

    SIGTERM and Ctrl-C finish the step, save and return.
    """
    with telling_who_is_gone(), process_group(device), stop_on_signals() as should_stop:
        return worker(
            recipe.model_dump(),
            output,
            device=device,
            resume=resume,
            allowed=allowed,
            built=built,
            should_stop=should_stop,
            notice=notice,
        )
