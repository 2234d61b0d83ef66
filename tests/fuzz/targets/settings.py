"""Settings: TOML files, recipes and their bases, `--set`; and lists of inputs."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.target import Files, Target

_MINE = b"""source = "auto"
proposer = "graph"
[read]
longest_side = 512
jpeg_quality = 90
label_fps = 6.0
license = "CC BY 4.0"
[graph]
min_area = 0.001
[negatives]
max_iou = 0.5
[shards]
max_bytes = 1000000
[run]
actors = 2
"""
_RECIPE = b"""base = "below"
name = "mine"
[optim]
lr = 0.01
groups = [{match = "backbone.*", lr_factor = 0.1, weight_decay = 0.0}]
[schedule]
steps = 100
milestones = [50, 80]
[data]
url = "/data"
batch_size = 4
"""
_BELOW = b"""task = "masa"
[schedule]
warmup_steps = 5
[checkpoint]
every = 10
"""
_SET = b"read.longest_side = 512\nrun.actors = 2\nread.license = 'CC BY'\ngraph.min_area = 0.01\n"
_LIST = b"# inputs\npicture.jpg\nfolder/\nhttps://host.example/shard-{000000..000003}.tar\n\n/absolute/clip.mp4\n"


def _run_toml() -> list[Files]:
    return [{"run.toml": _MINE}]


def _read_run_toml(folder: Path) -> object:
    from trackmill.pipeline.console.layers import layered
    from trackmill.pipeline.mining.settings import MineConfig
    from trackmill.schemas.config import build

    where = str(folder / "run.toml")
    return build(MineConfig, layered(where, [], []), where)


def _recipes() -> list[Files]:
    return [{"mine.toml": _RECIPE, "below.toml": _BELOW}]


def _read_recipe(folder: Path) -> object:
    from trackmill.pipeline.training.recipe_files import load_recipe

    return load_recipe(str(folder / "mine.toml"), {})


def _assignments() -> list[Files]:
    return [{"set.toml": _SET}]


def _read_assignments(folder: Path) -> object:
    from trackmill.pipeline.console.layers import layered
    from trackmill.pipeline.mining.settings import MineConfig
    from trackmill.schemas.config import build

    words = [line for line in (folder / "set.toml").read_bytes().decode("utf-8", "surrogateescape").split("\n") if line]
    return build(MineConfig, layered(None, words, []), "command line")


def _lists() -> list[Files]:
    return [{"inputs.txt": _LIST}, {"inputs.txt": _LIST.replace(b"\n", b"\0")}]


def _read_list(folder: Path) -> object:
    from trackmill.pipeline.sources.input_list import expand_shards, read_input_list

    return expand_shards(read_input_list(str(folder / "inputs.txt")))


ALL = (
    Target(name="run-toml", seeds=_run_toml, run=_read_run_toml, share=120),
    Target(name="recipe", seeds=_recipes, run=_read_recipe, torch=True, about=("mine", "below"), share=100),
    Target(name="set", seeds=_assignments, run=_read_assignments, about=("--set", "command line"), share=100),
    # Whatever a list holds is taken for the name of an input, and its range may be what an error names.
    Target(name="input-list", seeds=_lists, run=_read_list, about=("..", "host.example"), share=60),
)
