"""Recipes that stand on each other, and the recipes of the project, whose meaning may not change."""

from __future__ import annotations

import uuid
from pathlib import Path

import fsspec
import pytest

from tests.runs import ROOT
from tests.training.tiny_runs import tiny_recipe
from tests.training.tiny_task import TINY
from trackmill.pipeline.training.recipe import effective, make_recipe, stored_recipe
from trackmill.pipeline.training.recipe_files import load_recipe
from trackmill.schemas.config import ConfigError

RECIPES = ROOT / "jobs" / "recipes"

# What a checkpoint of each recipe is compared by, as commit 6913bfc computed it. Runs begun then go on only as long as
# these stay.
DIGESTS = {
    "masa_detic": "d518e3e0f079f9be956a4513d795858b12fe91bebe1bcc68d79261c493386e0c",
    "masa_gdino": "a3df1e3ce24bb921773dfa88b2716cf58048ca0ef4e2c1bc0a26fa21bd8fbbf7",
    "masa_lite0": "992109cae256e7790bf651f437066018231ae255306aacbb89579b6606a46186",
    "masa_lite0_colour": "29495c47df143da7b9de94807a10071995280625beeee4f5a9e385bab11a7679",
    "masa_r50": "24218444236189d8cca647e8292e72963430c18a54b6899a82f8efbd9b14762d",
    "masa_sam_vitb": "03517cdd5b043a3d43355f83c995c3533df4a95ca461f5493214c703685f79f9",
    "masa_sam_vith": "c78e9017dd349aa52d27a39ba4c780b15662820c53511812126f26789b703a7a",
}
TINY_DIGEST = "aaf11b895b6164108285133956ede553037cd0625b0c588ff4d7cd976e84ea3b"
"""Likewise of the tiny task's recipe; it was called `tiny` then, and nothing of it lay in a recipe but this name."""


@pytest.mark.parametrize("name", DIGESTS)
def test_the_recipes_mean_what_they_meant(name: str) -> None:
    recipe = load_recipe(name, {}, RECIPES)
    assert effective(recipe)[1] == DIGESTS[name]
    # And what they say about how a run goes.
    workers, every, rows, evaluations = (1, 100, 10, 100) if name.startswith("masa_lite0") else (8, 500, 50, 3125)
    assert (recipe.data.workers, recipe.checkpoint.every, recipe.checkpoint.keep) == (workers, every, 2)
    assert (recipe.telemetry.every, recipe.evaluation.every, recipe.evaluation.gt) == (rows, evaluations, "")
    assert (recipe.name, recipe.engine.name) == (name, "torch")


def test_a_run_of_a_task_that_has_moved_goes_on() -> None:
    assert effective(tiny_recipe("/data"))[1] == TINY_DIGEST


def test_a_new_setting_counts_where_it_is_set() -> None:
    group = {"match": "head.*", "lr_factor": 0.5}
    kept, changed = effective(tiny_recipe("/data", optim={"groups": [group]}))
    assert changed != TINY_DIGEST
    assert kept["optim.groups"] == [{**group, "weight_decay": None}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ground.toml").write_text(
        f'name = "the ground"\ntask = "{TINY}"\n[optim]\nlr = 0.5\nmomentum = 0.8\n[model]\nwidth = 3\n'
        '[[optim.groups]]\nmatch = "norm.*"\n'
    )
    (tmp_path / "floor.toml").write_text('base = "ground"\n[optim]\nlr = 0.25\n')
    (tmp_path / "roof.toml").write_text('base = "floor"\nseed = 4\n[optim]\ngroups = []\n[model]\ndropout = 0.1\n')
    (tmp_path / "sub").mkdir()
    return tmp_path


def test_a_recipe_says_only_what_differs(folder: Path) -> None:
    roof = load_recipe("roof", {"model": {"width": 9}}, folder)
    assert (roof.name, roof.task, roof.seed) == ("roof", TINY, 4)
    assert (roof.optim.lr, roof.optim.momentum, roof.optim.groups) == (0.25, 0.8, ())
    assert (roof.model.width, roof.model.dropout) == (9, 0.1)
    stored = stored_recipe(roof)
    assert "base" not in stored, "what is stored stands alone"
    assert make_recipe(stored, "config.json") == roof
    assert load_recipe("ground", {}, folder).name == "the ground"


@pytest.mark.parametrize("base", ["../floor.toml", "{folder}/floor.toml", "floor"])
def test_a_base_may_lie_elsewhere(base: str, folder: Path) -> None:
    """Relative to the file that names it, wherever the command is typed; a name that is not beside it, among ours."""
    own = folder / "sub" / "own.toml"
    own.write_text(f'base = "{base.format(folder=folder)}"\nseed = 7\n')
    recipe = load_recipe(str(own), {}, folder)
    assert (recipe.name, recipe.seed, recipe.optim.lr, recipe.optim.momentum) == ("own", 7, 0.25, 0.8)


def test_one_of_ours_is_a_base_for_everybody(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('base = "masa_sam_vith"\n[optim]\naccumulate = 8\n')
    mine, ours = (load_recipe(each, {}, RECIPES) for each in (str(tmp_path / "mine.toml"), "masa_sam_vith"))
    assert mine.model == ours.model
    assert (mine.optim.accumulate, mine.optim.lr) == (8, ours.optim.lr)


def test_recipes_in_a_store(folder: Path) -> None:
    root = f"memory://{uuid.uuid4().hex}"
    for name in ("ground", "floor", "roof"):
        with fsspec.open(f"{root}/recipes/{name}.toml", "wb") as handle:
            handle.write((folder / f"{name}.toml").read_bytes())
    with fsspec.open(f"{root}/runs/own.toml", "wb") as handle:
        handle.write(b'base = "../recipes/roof.toml"\nseed = 8\n')
    recipe = load_recipe(f"{root}/runs/own.toml", {})
    assert (recipe.name, recipe.seed, recipe.optim.lr, recipe.model.dropout) == ("own", 8, 0.25, 0.1)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param(
            {"a": 'base = "b"', "b": 'base = "c"', "c": 'base = "b"'},
            r"^recipe a: its bases run in a circle: \S*/b\.toml -> \S*/c\.toml -> \S*/b\.toml$",
            id="a circle",
        ),
        pytest.param({"a": 'base = "a"'}, "circle: .*a.toml -> .*a.toml", id="its own base"),
        pytest.param({"a": 'bse = "floor"'}, "recipe a: unknown key 'bse'; did you mean 'base'", id="a misspelt base"),
        pytest.param({"a": 'base = "flor"'}, "recipe a: base = 'flor': did you mean 'floor'", id="a misspelt name"),
        pytest.param(
            {"a": 'base = "../no.toml"'},
            r"recipe a: base = '\.\./no\.toml': there is no file \S+/no\.toml",
            id="no file",
        ),
        pytest.param({"a": "base = 3"}, "recipe a: base = 3 should be the name or path", id="no text"),
        pytest.param(
            {"a": 'base = "b"\n[model]\nwidth = 2', "b": 'base = "ground"\n[optim]\nmomentun = 0.1'},
            r"^recipe \S*/b\.toml, a base of recipe a: unknown key 'optim\.momentun'; did you mean 'optim.momentum'",
            id="a misspelt key of a base",
        ),
        pytest.param(
            {"a": 'base = "ground"\n[optim]\nmomentun = 0.1'},
            r"^recipe a: unknown key 'optim\.momentun'; did you mean 'optim.momentum'",
            id="a misspelt key of its own",
        ),
        pytest.param({"a": 'base = "b"', "b": "[optim"}, r"^recipe \S*/b\.toml: not valid TOML", id="a broken base"),
    ],
)
def test_mistakes_are_named_with_their_file(files: dict[str, str], message: str, folder: Path) -> None:
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text + "\n")
    with pytest.raises(ConfigError, match=message) as raised:
        load_recipe("a", {}, folder)
    assert "\n" not in str(raised.value)


def test_what_the_command_line_says_wrong_is_not_blamed_on_a_base(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"^recipe roof: unknown key 'optim\.momentun'"):
        load_recipe("roof", {"optim": {"momentun": 1}}, folder)


def test_a_recipe_and_a_base_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('base = "below"\n')
    (tmp_path / "below.toml").write_bytes(b"task = 'masa' # \xff\xfe")
    with pytest.raises(ConfigError, match=r"recipe .*below\.toml: not a text file; a recipe is TOML"):
        load_recipe(str(tmp_path / "mine.toml"), {})
    with pytest.raises(ConfigError, match=r"recipe .*below\.toml: not a text file; a recipe is TOML"):
        load_recipe(str(tmp_path / "below.toml"), {})
