"""What the documents show can be typed: commands, settings, recipes, Python, and the files that are named."""

from __future__ import annotations

import ast
import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from tests.documents.blocks import DOCUMENTS, ROOT, SHELL, Block, Command, blocks, commands
from trackmill.jobs.main import COMMANDS
from trackmill.pipeline.audit.settings import AuditSettings
from trackmill.pipeline.demo.settings import DemoSettings
from trackmill.pipeline.mining.settings import MineConfig
from trackmill.pipeline.tasks import TASKS
from trackmill.pipeline.tracking.settings import TrackConfig
from trackmill.pipeline.training.recipe import make_recipe
from trackmill.pipeline.training.recipe_files import load_recipe
from trackmill.schemas.errors import InputError

SHOWN = [command for block in blocks(*SHELL) for command in commands(block)]


def test_there_are_commands_of_every_kind() -> None:
    assert {command.name for command in SHOWN} >= set(COMMANDS) - {"vocabulary", "convert", "demo"}


@pytest.mark.parametrize("command", SHOWN, ids=str)
def test_commands_have_options_that_exist(command: Command) -> None:
    job = importlib.import_module(f"trackmill.jobs.{COMMANDS[command.name][0]}").JOB
    parser = job.parser()
    if not command.whole:
        for action in parser._actions:
            action.required = False
    parser.read(command.words)


def known_settings() -> dict[str, set[str]]:
    """Every section with its keys, over all commands."""
    found: dict[str, set[str]] = {}

    def add(settings: BaseModel, path: str) -> None:
        for name in type(settings).model_fields:
            value = getattr(settings, name)
            if isinstance(value, BaseModel):
                add(value, f"{path}{name}.")
            elif path:
                found.setdefault(path.partition(".")[0], set()).add(f"{path}{name}")

    trees = [MineConfig(), TrackConfig(), DemoSettings(), *(make_recipe({"task": task}, task) for task in TASKS)]
    for tree in [*trees, AuditSettings()]:
        add(tree, "")
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_settings_and_files_that_are_named_exist(document: Path) -> None:
    settings = known_settings()
    for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", document.read_text()):
        if match := re.fullmatch(r"([a-z_]+)\.([a-z_.]+)(?:=.*| = .*)?", code):
            section, key = match[1], f"{match[1]}.{match[2]}"
            if section in settings and not key.endswith(
                (".py", ".md", ".json", ".toml", ".txt", ".sbatch", ".yaml", ".sh")
            ):
                assert any(name == key or name.startswith(f"{key}.") for name in settings[section]), code
        if re.fullmatch(r"(?:jobs|pipeline|models|schemas|infra|tests|docs)/[\w/.-]*", code):
            assert (ROOT / code).exists() or list(ROOT.glob(f"{code}*")), f"{code} does not exist"


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_toml_can_be_read(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = tomllib.loads(block.text)
    module, colon, name = values.get("task", "").partition(":")
    if colon:  # a task that the same page shows
        shown = [each for each in blocks("python") if each.document == block.document]
        (own,) = [each for each in shown if f"class {name}(" in each.text]
        (tmp_path / f"{module}.py").write_text(own.text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, module, raising=False)
    if {"base", "task"} & values.keys():
        (tmp_path / "own.toml").write_text(block.text)
        load_recipe(str(tmp_path / "own.toml"), {}, ROOT / "jobs" / "recipes")


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_imports_what_exists(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Import):
            for name in node.names:
                importlib.import_module(name.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            for name in node.names:
                assert hasattr(module, name.name), f"{node.module} has no {name.name}"


def test_a_wrong_option_is_found(tmp_path: Path) -> None:
    block = Block("x.md", 1, "", "trackmill mine --input a --output b --workersss 3\n")
    (command,) = commands(block)
    with pytest.raises(InputError, match="did you mean"):
        test_commands_have_options_that_exist(command)
