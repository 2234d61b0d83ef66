"""The recipes that come along: what each trains, its own lines, and the settings of each task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import trackmill.jobs
from generate.markdown import code
from generate.settings_pages import settings_page
from trackmill.pipeline.tasks import TASKS
from trackmill.pipeline.training.recipe import Recipe, make_recipe

RECIPES = Path(trackmill.jobs.__file__ or "").parent / "recipes"


def recipes_page() -> str:
    """Every recipe as it lies in the folder: few lines, with the reasons beside them."""
    lines = [
        "# Recipes",
        "",
        "A recipe is a TOML file with the settings of one training run. `--recipe NAME` takes one of these, "
        "`--recipe FILE` one of your own. What a recipe leaves out has "
        "the default of [its task's settings](settings-train-masa.md).",
        "",
    ]
    for path in sorted(RECIPES.glob("*.toml")):
        lines += [f"## {code(path.stem)}", "", "```toml", path.read_text().rstrip(), "```", ""]
    return "\n".join(lines)


def task_pages() -> Iterator[tuple[str, str]]:
    """Name and text of a page for each task."""
    for task in TASKS:
        opening = (
            f'Settings of a recipe with `task = "{task}"`. In a recipe `data.workers` is `workers = 2` under `[data]`; '
            "on the command line it is `--set data.workers=2`. All in one file: "
            f"`trackmill train --recipe NAME --print-config`."
        )
        yield task, settings_page(f"Settings of `{task}` recipes", opening, task_recipe(task), f"{task}-")


def task_recipe(task: str) -> Recipe:
    """The settings of a task with their defaults."""
    return make_recipe({"task": task}, task)
