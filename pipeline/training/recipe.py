"""A recipe: all settings of a training run in one typed tree, and what of it decides the result.

`task` says which sections there are beside the common ones. What a recipe leaves out has the default of its section.
How recipes are read from files is in `recipe_files.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import Field, create_model

from trackmill.pipeline.loader.settings import DataSettings
from trackmill.pipeline.storage.credentials import scrub_values
from trackmill.pipeline.storage.secrets.signed_urls import without_signatures
from trackmill.pipeline.tasks import task_class
from trackmill.pipeline.tasks.base import Task
from trackmill.pipeline.training.checkpoint import CheckpointSettings
from trackmill.pipeline.training.ema import EmaSettings
from trackmill.pipeline.training.engines.base import EngineSettings, OptimSettings
from trackmill.pipeline.training.ray.ray_settings import RaySettings
from trackmill.pipeline.training.schedule import ScheduleSettings, in_steps
from trackmill.pipeline.training.telemetry import TelemetrySettings
from trackmill.pipeline.training.watchdog import WatchdogSettings
from trackmill.schemas.config import ConfigError, Settings, build, digest, flatten


class Recipe(Settings):
    """The resolved recipe of one run, without the sections of its task."""

    name: str = Field("", description="What the run is called; a recipe file's name if left out.")
    task: str = Field("masa", description="What is learnt: a name, or my_package.my_module:MyTask for your own.")
    seed: int = Field(0, ge=0, description="Of the starting weights, the order of samples and all that is random.")
    max_steps: int = Field(
        0, ge=0, description="Stop after so many steps; the schedule stays as it is. 0: at the schedule's end."
    )
    max_nonfinite: int = Field(
        5, gt=0, description="Stop when loss or gradients were nan or infinite in so many steps, one after the other."
    )
    max_skipped: float = Field(
        0.5, gt=0, le=1, description="Stop when more than this share of the last 100 steps was left out for that."
    )
    data: DataSettings = DataSettings()
    optim: OptimSettings = OptimSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    ema: EmaSettings = EmaSettings()
    engine: EngineSettings = EngineSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    watchdog: WatchdogSettings = WatchdogSettings()
    ray: RaySettings = RaySettings()

    @property
    def micro_batch(self) -> int:
        """Samples of a micro batch over all ranks."""
        return self.data.batch_size // self.optim.accumulate


NO_EFFECT = (
    "name",
    "max_steps",
    "max_nonfinite",
    "max_skipped",
    "engine.name",
    "engine.zero_stage",
    "engine.activation_checkpointing",
    "data.url",
    "data.workers",
    "data.prefetch",
    "data.cache",
    "data.cache_bytes",
    "data.verify",
    "data.max_bad",
    "checkpoint",
    "telemetry",
    "watchdog",
    "ray",
)
"""Common keys and sections that may change when a run goes on: they say where and how it is run, not what is learnt.
(Engines differ in rounding; the data set is held to its fingerprint, not to its place.) A task names its own."""

ADDED_LATER: Mapping[str, Any] = {"optim.groups": [], "schedule.epochs": 0.0, "schedule.milestone_epochs": []}
"""Common keys that older runs do not have, each with the value that means what those runs did, see
`trackmill.pipeline.tasks.base.Task.added_later`."""


def make_recipe(values: Mapping[str, Any], where: str) -> Recipe:
    """A recipe out of nested plain values; the sections of its task become attributes of it as well.

    Args:
        values: by section and key.
        where: what an error begins with.

    Raises:
        ConfigError: see `trackmill.schemas.config.build` and `trackmill.pipeline.tasks.task_class`.
    """
    try:
        cls = _recipe_class(str(values.get("task", "masa")))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return build(cls, without_signatures(dict(values)), where)


def for_data(recipe: Recipe, samples: int) -> Recipe:
    """A recipe as it is for a data set of so many samples: its schedule is in steps.

    Raises:
        ConfigError: see `in_steps`.
    """
    return recipe.model_copy(update={"schedule": in_steps(recipe.schedule, samples, recipe.data.batch_size)})


def make_task(recipe: Recipe) -> Task:
    """The task that a recipe names, with its sections.

    Raises:
        ConfigError: settings of the task that do not go together; names the key.
        ImportError: the task needs a package that is missing.
    """
    cls = task_class(recipe.task)
    make: Callable[..., Task] = cls
    return make(**{name: getattr(recipe, name) for name in cls.sections})


def stored_recipe(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as nested plain values, fit to be stored: without what could be a credential."""
    scrubbed: dict[str, Any] = scrub_values(recipe.model_dump(mode="json"))
    return scrubbed


def effective(recipe: Recipe) -> tuple[dict[str, Any], str]:
    """What decides the result, by dotted key, and a digest over it. A task counts by name, wherever its class is."""
    task = task_class(recipe.task)
    without = (*NO_EFFECT, *task.no_effect)
    added = {**ADDED_LATER, **task.added_later}
    kept = {
        key: value
        for key, value in flatten(stored_recipe(recipe)).items()
        if not any(key == each or key.startswith(f"{each}.") for each in without)
        and not (key in added and value == added[key])
    }
    kept["task"] = task.name
    return kept, digest(kept)


@functools.cache
def _recipe_class(name: str) -> type[Recipe]:
    """The common sections with those of a task.

    Raises:
        ConfigError: there is no such task, or one of its sections is called as a common one.
    """
    fields: dict[str, Any] = {}
    for section, cls in task_class(name).sections.items():
        if section in Recipe.model_fields:
            raise ConfigError(f"task {name}: its section {section!r} has the name of a common one; call it otherwise")
        required = any(field.is_required() for field in cls.model_fields.values())
        fields[section] = (cls, ...) if required else (cls, Field(default_factory=cls))
    return create_model("Recipe", __base__=Recipe, **fields)
