"""Writes all pages that follow from the code into `docs/reference/generated`, and what is served beside the pages."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import BaseModel

from generate.links import DOCS, OUTSIDE, ROOT, resolved
from generate.markdown import code, table
from generate.option_pages import option_page
from generate.recipe_pages import recipes_page, task_pages, task_recipe
from generate.schema_pages import schema_page
from generate.settings_pages import settings_page
from trackmill.jobs.main import COMMANDS
from trackmill.models.registry import DETECTORS, MODELS, PROPOSERS, Entry
from trackmill.models.weights.packaged_person import INSTALL
from trackmill.pipeline.console.exit_codes import ExitCode
from trackmill.pipeline.demo.settings import DemoSettings
from trackmill.pipeline.mining.settings import MineConfig
from trackmill.pipeline.tasks import TASKS
from trackmill.pipeline.tracking.settings import TrackConfig
from trackmill.schemas.install import install
from trackmill.schemas.sample import json_schemas

SETTINGS: dict[str, tuple[str, type[BaseModel]]] = {
    "mine": ("of mining", MineConfig),
    "track": ("of tracking", TrackConfig),
    "demo": ("of the demo", DemoSettings),
}
"""Page of settings: what they are of, and their class. Those of training are one page a task."""


def write_all(docs: Path) -> None:
    """Write every page whose text changed, and take away those that are no more.

    Args:
        docs: the folder of the documentation's sources.
    """
    wanted = {f"reference/generated/{name}.md": text for name, text in pages()}
    wanted |= {f"generated/extra/schemas/{name}.json": text for name, text in schemas()}
    for name, text in wanted.items():
        path = docs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:  # an older date would have Sphinx read it again
            path.write_text(text)
    for path in [*docs.glob("reference/generated/*.md"), *docs.glob("generated/extra/schemas/*.json")]:
        if path.relative_to(docs).as_posix() not in wanted:
            path.unlink()


def page_names() -> set[str]:
    """Names of all pages, without writing them."""
    named = {f"command-{command}" for command in COMMANDS} | {f"settings-{name}" for name in SETTINGS}
    return named | {f"settings-train-{task}" for task in TASKS} | {*_SINGLE, *OUTSIDE.values()}


def pages() -> Iterator[tuple[str, str]]:
    """Names and texts."""
    for command in COMMANDS:
        yield f"command-{command}", option_page(command)
    for name, (whose, settings) in SETTINGS.items():
        opening = (
            "On the command line a setting is `--set KEY=VALUE`; in a file for `--config` it stands under its section. "
            f"`trackmill {name} --print-config` prints this list as such a file."
        )
        yield f"settings-{name}", settings_page(f"Settings {whose}", opening, settings(), f"{name}-")
    for task, text in task_pages():
        yield f"settings-train-{task}", text
    yield from ((name, make()) for name, make in _SINGLE.items())
    for name, page in OUTSIDE.items():
        yield page, resolved((ROOT / name).read_text(), ROOT / name, DOCS / "reference" / "generated" / f"{page}.md")


def schemas() -> Iterator[tuple[str, str]]:
    """JSON Schemas: of files of settings, for editors, and of the records of a sample."""
    for name, (_, settings) in SETTINGS.items():
        yield name, _text(settings.model_json_schema())
    for task in TASKS:
        yield f"recipe-{task}", _text(type(task_recipe(task)).model_json_schema())
    yield "sample", _text(json_schemas())


def _text(schema: object) -> str:
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"


def parts_page() -> str:
    """What can be named: models, detectors, proposers, and what each needs."""
    lines = ["# Models, detectors and proposers by name", ""]
    for title, option, entries in (
        ("Models", "--model", MODELS),
        ("Detectors", "--detections", DETECTORS),
        ("Proposers", "--proposer", PROPOSERS),
    ):
        rows = [
            [code(name), entry.summary, _needs(entry), ", ".join(map(code, entry.published))]
            for name, entry in entries.items()
        ]
        lines += [f"## {title}: `{option}`", ""]
        lines += [*table(["name", "what it is", "needs", "published files that load"], rows), ""]
    return "\n".join(lines)


def _needs(entry: Entry) -> str:
    if entry.packaged:
        return f"{code(INSTALL)}, {code(install('masa'))}"
    return code(install(entry.extra)) if entry.extra else "nothing more"


def exit_codes_page() -> str:
    """The table of exit codes."""
    said = _attribute_docstrings(ExitCode)
    rows = [[code(str(int(each))), code(each.name), said[each.name]] for each in ExitCode]
    lines = ["# Exit codes", "", "Schedulers and scripts may act on them: the numbers never change.", ""]
    return "\n".join([*lines, *table(["code", "name", "what it says"], rows), ""])


def _attribute_docstrings(cls: type) -> dict[str, str]:
    """Texts that stand under the members of a class; Python itself does not keep them."""
    import ast
    import inspect

    body = ast.parse(inspect.getsource(importlib.import_module(cls.__module__)))
    (found,) = (node for node in body.body if isinstance(node, ast.ClassDef) and node.name == cls.__name__)
    texts = {}
    for before, after in zip(found.body, found.body[1:]):
        if isinstance(before, ast.Assign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            texts[before.targets[0].id] = " ".join(str(after.value.value).split())  # type: ignore[attr-defined]
    return texts


_SINGLE: dict[str, Callable[[], str]] = {
    "files": schema_page,
    "recipes": recipes_page,
    "parts": parts_page,
    "exit-codes": exit_codes_page,
}
