"""A recipe: everything a training run can be told, in one typed tree, out of TOML files and the command line.

`task` says which sections there are beside the common ones. What a recipe leaves out has the default of its section.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, create_model

from trackmill.pipeline.loader.settings import DataSettings
from trackmill.pipeline.loader.views import ViewSettings
from trackmill.pipeline.storage.credentials import redact, scrub
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.tasks.base import Task
from trackmill.pipeline.tasks.masa.task import EvaluationSettings, LossSection, MasaTask, ModelSettings, ObjectSettings
from trackmill.pipeline.training.checkpoint import CheckpointSettings
from trackmill.pipeline.training.ema import EmaSettings
from trackmill.pipeline.training.engines.base import EngineSettings, OptimSettings
from trackmill.pipeline.training.ray.ray_settings import RaySettings
from trackmill.pipeline.training.schedule import ScheduleSettings
from trackmill.pipeline.training.telemetry import TelemetrySettings
from trackmill.pipeline.training.watchdog import WatchdogSettings
from trackmill.schemas.config import ConfigError, Settings, build, digest, flatten, merge, parse_toml


class Recipe(Settings):
    """The resolved recipe of one run, without the sections of its task."""

    name: str = Field("", description="What the run is called; a recipe file's name if left out.")
    task: str = Field("masa", description="What is learnt.")
    seed: int = Field(0, ge=0, description="Of the starting weights, the order of samples and all that is random.")
    max_steps: int = Field(
        0, ge=0, description="Stop after so many steps; the schedule stays as it is. 0: at the schedule's end."
    )
    max_nonfinite: int = Field(
        5, gt=0, description="Stop when the loss was nan or infinite in so many steps, one after the other."
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


@dataclass(frozen=True, kw_only=True)
class TaskKind:
    """A task that recipes may name.

    Args:
        sections: settings that belong to it, by the name of their section.
        make: the task, out of a recipe with these sections.
    """

    sections: Mapping[str, type[Settings]]
    make: Callable[[Any], Task]


TASKS: dict[str, TaskKind] = {
    "masa": TaskKind(
        sections={
            "model": ModelSettings,
            "objects": ObjectSettings,
            "views": ViewSettings,
            "loss": LossSection,
            "evaluation": EvaluationSettings,
        },
        make=lambda recipe: MasaTask(recipe.model, recipe.objects, recipe.views, recipe.loss, recipe.evaluation),
    )
}

NO_EFFECT = (
    "name",
    "max_steps",
    "max_nonfinite",
    "engine.name",
    "engine.zero_stage",
    "engine.activation_checkpointing",
    "data.url",
    "data.workers",
    "data.prefetch",
    "data.cache",
    "data.cache_bytes",
    "data.max_bad",
    "checkpoint",
    "telemetry",
    "watchdog",
    "ray",
    "evaluation",
)
"""Keys and sections that may change when a run goes on: they say where and how it is run, not what is learnt. (Engines
differ in rounding; the data set is held to its fingerprint, not to its place.)"""


def load_recipe(name_or_path: str, overrides: Mapping[str, Any], folder: Path | None = None) -> Recipe:
    """Read a recipe and lay changes over it.

    Args:
        name_or_path: name of a file in `folder`, or the path or URL of any TOML file.
        overrides: nested plain values that win over the file.
        folder: where recipes by name lie.

    Raises:
        ConfigError: no such recipe, unknown keys (names the nearest), or values out of range.
    """
    shown = redact(name_or_path)
    if name_or_path.endswith(".toml") or "/" in name_or_path:
        source = name_or_path
    else:
        known = sorted(path.stem for path in folder.glob("*.toml")) if folder else []
        if name_or_path not in known:
            near = difflib.get_close_matches(name_or_path, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(f"recipe {shown!r}: {hint}known are {', '.join(known)}; or give the path of a .toml file")
        source = f"{folder}/{name_or_path}.toml"
    try:
        text = read_bytes(source).decode()
    except FileNotFoundError:
        raise ConfigError(f"recipe {shown}: no such file") from None
    values = merge(parse_toml(text, f"recipe {shown}"), dict(overrides))
    values.setdefault("name", Path(source).stem)
    return make_recipe(values, f"recipe {shown}")


def make_recipe(values: Mapping[str, Any], where: str) -> Recipe:
    """A recipe out of nested plain values; the sections of its task become attributes of it as well.

    Raises:
        ConfigError: see `trackmill.schemas.config.build`.
    """
    name = values.get("task", "masa")
    if name not in TASKS:
        near = difflib.get_close_matches(str(name), TASKS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(TASKS)}"
        raise ConfigError(f"{where}: unknown task {name!r}; {hint}")
    return build(_recipe_class(name), dict(values), where)


def make_task(recipe: Recipe) -> Task:
    """The task that a recipe names, with its sections."""
    return TASKS[recipe.task].make(recipe)


def plain(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as nested plain values, fit to be stored: without what could be a credential."""
    return _scrubbed(recipe.model_dump(mode="json"))


def effective(recipe: Recipe) -> tuple[dict[str, Any], str]:
    """What changes results, by dotted key, and a digest over it."""
    kept = {
        key: value
        for key, value in flatten(plain(recipe)).items()
        if not any(key == each or key.startswith(f"{each}.") for each in NO_EFFECT)
    }
    return kept, digest(kept)


@functools.cache
def _recipe_class(task: str) -> type[Recipe]:
    fields: dict[str, Any] = {name: (section, section()) for name, section in TASKS[task].sections.items()}
    return create_model("Recipe", __base__=Recipe, **fields)


def _scrubbed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _scrubbed(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_scrubbed(each) for each in value]
    return scrub(value) if isinstance(value, str) else value
