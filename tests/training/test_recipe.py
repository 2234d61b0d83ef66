"""Recipes: what wins over what, and that every mistake is named with the nearest right thing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.runs import ROOT
from tests.training.tiny_task import TINY, TinyTask
from trackmill.pipeline.training.recipe import effective, make_recipe, make_task, stored_recipe
from trackmill.pipeline.training.recipe_files import load_recipe
from trackmill.schemas.config import ConfigError

RECIPES = ROOT / "jobs" / "recipes"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small.toml").write_text(f'task = "{TINY}"\n[optim]\nlr = 0.5\n[model]\nwidth = 3\n')
    (tmp_path / "broken.toml").write_text("[optim\nlr = 0.5\n")
    return tmp_path


def test_a_recipe_by_name_or_by_path(folder: Path) -> None:
    by_name = load_recipe("small", {}, folder)
    assert by_name == load_recipe(str(folder / "small.toml"), {})
    assert (by_name.name, by_name.optim.lr, by_name.model.width, by_name.model.dropout) == ("small", 0.5, 3, 0.2)
    assert isinstance(make_task(by_name), TinyTask)
    assert make_recipe(by_name.model_dump(), "again") == by_name, "what is sent to a worker is the same recipe"


def test_changes_win_key_by_key(folder: Path) -> None:
    recipe = load_recipe("small", {"optim": {"momentum": 0.5}, "model": {"width": 4}}, folder)
    assert (recipe.optim.lr, recipe.optim.momentum, recipe.model.width) == (0.5, 0.5, 4)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("small", {"optim": {"momentun": 1}}, r"small: unknown key .optim\.momentun.; did you mean .optim.momentum.\?"),
        ("small", {"optin": {"lr": 1}}, r"unknown key 'optin'; did you mean 'optim'\?"),  # codespell:ignore
        ("small", {"model": {"widht": 1}}, "did you mean 'model.width'"),  # codespell:ignore
        ("small", {"loss": {}}, "unknown key 'loss'"),  # a section of another task
        ("small", {"optim": {"lr": -1}}, r"optim\.lr: .*greater than 0"),
        ("small", {"task": "massa"}, r"recipe small: no task is called 'massa'; did you mean 'masa'\?"),
        ("small", {"task": "tests.training.tiny_tusk:Task"}, r"there is no module 'tests\.training\.tiny_tusk'"),
        ("small", {"task": "tests.training.tiny_task:TineyTask"}, r"tests\.training\.tiny_task has no 'TineyTask'"),
        ("small", {"task": "tests.training.tiny_task:TinyNetwork"}, "is no class derived from"),
        ("smalls", {}, r"recipe 'smalls': did you mean 'small'\? known are broken, small; or give the path"),
        ("broken", {}, "recipe broken: not valid TOML"),
        ("there/is/none.toml", {}, "no such file"),
    ],
)
def test_mistakes_are_named(name: str, changes: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(name, changes, folder)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"name": "other", "max_steps": 5}, True),
        ({"engine": {"name": "deepspeed", "zero_stage": 3}}, True),
        ({"data": {"url": "elsewhere", "workers": 7, "cache": "c"}}, True),
        ({"checkpoint": {"every": 7}, "telemetry": {"every": 7}, "watchdog": {"timeout_s": 7}}, True),
        ({"evaluation": {"every": 3}}, True),
        ({"data": {"batch_size": 8}}, False),
        ({"optim": {"accumulate": 2}}, False),
        ({"engine": {"precision": "bfloat16"}}, False),
        ({"model": {"width": 9}}, False),
        ({"seed": 1}, False),
    ],
)
def test_what_changes_results(changes: dict[str, Any], same: bool, folder: Path) -> None:
    before, after = effective(load_recipe("small", {}, folder)), effective(load_recipe("small", changes, folder))
    assert (before == after) is same


def test_credentials_are_not_stored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET_KEY", "open-sesame-1234")
    recipe = load_recipe("small", {"data": {"url": "s3://bucket/open-sesame-1234"}}, folder)
    assert "sesame" not in str(stored_recipe(recipe))


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.toml")))
def test_every_shipped_recipe_is_valid(name: str) -> None:
    assert load_recipe(name, {}, RECIPES).name
