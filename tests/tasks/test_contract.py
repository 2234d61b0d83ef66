"""What every task promises (`trackmill.pipeline.tasks.base`). A task of the project without a case here is an error."""

from __future__ import annotations

import dataclasses
import itertools
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

pytest.importorskip("albumentations")

from tests.training.clip_runs import NARROW, SMALL, SMALL_CLIPS, make_clips
from tests.training.tiny_runs import make_data
from tests.training.tiny_task import TINY
from trackmill.pipeline.loader.catalog import Catalog, read_catalog
from trackmill.pipeline.loader.contract import Collate
from trackmill.pipeline.loader.loader import ShardLoader
from trackmill.pipeline.loader.settings import DataSettings
from trackmill.pipeline.tasks import TASKS, task_class
from trackmill.pipeline.tasks.base import Evaluation, Task, TrainingModule
from trackmill.pipeline.training.engines import make_engine
from trackmill.pipeline.training.engines.base import EngineSettings, OptimSettings
from trackmill.pipeline.training.engines.ddp_module import to_device
from trackmill.pipeline.training.parameters import count_parameters, outline
from trackmill.pipeline.training.recipe import Recipe, make_recipe, make_task, stored_recipe
from trackmill.pipeline.training.result import fill_network, frozen_tensors, write_result
from trackmill.schemas.config import flatten

pytestmark = pytest.mark.filterwarnings("ignore:the frozen backbone")

CPU = torch.device("cpu")
SMALL_VIEWS = {"size": 96, "mixup": 0.0, "resize": [0.8, 1.4], "scale": [1.0, 1.0]}
CASES: dict[str, dict[str, Any]] = {
    "masa, all losses": {"task": "masa", "views": SMALL_VIEWS, "loss": {"proposals": 40, "samples": 32}},
    "masa, the head alone": {
        "task": "masa",
        "model": {"freeze": ["backbone"]},
        "views": SMALL_VIEWS,
        "loss": {"detection": False, "negatives": "batch"},
    },
    "scaletrack": {
        "task": "scaletrack",
        "model": {"variant": "scaletrack_lite0", "changes": NARROW},
        "clips": {"size": 64, "frames": 2, "resize": [0.9, 1.2]},
    },
    "ipmot": {
        "task": "ipmot",
        "model": {"variant": "ip_mot_tiny", "changes": SMALL},
        "clips": SMALL_CLIPS,
        "loss": {"alignment": False},
    },
    "of another package": {"task": TINY, "evaluation": {"every": 5}},
}
BATCHES = 6
"""Each trained parameter must have a gradient in one of so many."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return read_catalog(make_data(tmp_path_factory.mktemp("pictures")))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return read_catalog(make_clips(tmp_path_factory.mktemp("clips")))


@pytest.fixture(params=CASES.values(), ids=list(CASES))
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return make_recipe(request.param, "case")


@pytest.fixture
def task(recipe: Recipe) -> Task:
    return make_task(recipe)


@pytest.fixture
def catalog(recipe: Recipe, pictures: Catalog, clips: Catalog) -> Catalog:
    return clips if recipe.task in ("scaletrack", "ipmot") else pictures


def batches(
    catalog: Catalog, task: Task, count: int, collate: Collate | None = None, pickled: bool = False
) -> list[Any]:
    """The first batches of two samples, as a rank gets them."""
    make_example = task.make_example()
    loader = ShardLoader(
        catalog,
        DataSettings(workers=0),
        batch_size=2,
        make_example=pickle.loads(pickle.dumps(make_example)) if pickled else make_example,
        collate=collate or task.collate,
    )
    try:
        return list(itertools.islice(loader, count))
    finally:
        loader.close()


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors in nested structures, in order."""
    if isinstance(value, Tensor):
        return [value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = [getattr(value, each.name) for each in dataclasses.fields(value)]
    if isinstance(value, dict):
        value = list(value.values())
    return [each for part in value for each in tensors_of(part)] if isinstance(value, (list, tuple)) else []


def equal(first: Any, second: Any) -> bool:
    """Whether two structures hold the same tensors."""
    one, two = tensors_of(first), tensors_of(second)
    return len(one) == len(two) > 0 and all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def frozen_state(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all tensors in parts of which nothing is trained."""
    kept: dict[str, Tensor] = {}
    for name, part in module.named_modules():
        parameters = list(part.parameters())
        if parameters and not any(each.requires_grad for each in parameters):
            kept |= {f"{name}.{key}": each.clone() for key, each in part.state_dict().items()}
    return kept


def test_every_task_of_the_project_is_held_to_it() -> None:
    assert set(TASKS) <= {case["task"] for case in CASES.values()}
    assert {name: task_class(name).name for name in TASKS} == {name: name for name in TASKS}


@pytest.mark.parametrize("name", [*TASKS, TINY])
def test_a_task_needs_no_setting_and_knows_its_keys(name: str) -> None:
    recipe = make_recipe({"task": name}, "defaults")
    assert isinstance(make_task(recipe), Task)
    cls, keys = task_class(name), flatten(stored_recipe(recipe))
    for each in cls.no_effect:
        assert each in keys or any(key.startswith(f"{each}.") for key in keys), f"no such setting: {each}"
        assert each.split(".")[0] in cls.sections, f"{each} is not the task's"
    assert set(cls.added_later) <= set(keys)
    assert all(keys[key] == value for key, value in cls.added_later.items()), "a new key's default is what was before"


def test_the_module_follows_from_the_seed(task: Task) -> None:
    before = torch.get_rng_state()
    one, same, other = task.build(1), task.build(1), task.build(2)
    assert torch.equal(torch.get_rng_state(), before), "nobody else's random numbers change"
    state = one.state_dict()
    assert all(torch.equal(values, same.state_dict()[name]) for name, values in state.items())
    trained = {name: each for name, each in one.named_parameters() if each.requires_grad}
    assert trained
    assert all(each.dtype == torch.float32 and each.device == CPU for each in trained.values())
    assert any(not torch.equal(values, other.state_dict()[name]) for name, values in state.items())
    assert one.training
    assert isinstance(one.network, nn.Module)


def test_without_weights_the_module_is_the_same_in_names_shapes_and_what_is_frozen(task: Task) -> None:
    def shape(module: TrainingModule) -> dict[str, Any]:
        trained = {name for name, each in module.named_parameters() if each.requires_grad}
        return {name: (each.shape, each.dtype, name in trained) for name, each in module.state_dict().items()}

    real = task.build(0)
    assert shape(task.build(0, read_weights=False)) == shape(real)
    counted = outline(task, 0)
    assert shape(counted) == shape(real)
    assert count_parameters(counted) == count_parameters(real)


def test_examples_travel_and_follow_from_their_place(catalog: Catalog, task: Task) -> None:
    here, there = (batches(catalog, task, 2, list, pickled) for pickled in (False, True))
    sent = pickle.loads(pickle.dumps(here))
    for first, second, third in zip(here, there, sent, strict=True):
        assert equal(task.collate(first), task.collate(second))
        assert equal(task.collate(first), task.collate(third))


def test_a_batch_moves_to_a_device_whole(catalog: Catalog, task: Task) -> None:
    (batch,) = batches(catalog, task, 1)
    moved = to_device(batch, torch.device("meta"))
    assert type(moved) is type(batch)
    assert len(tensors_of(moved)) == len(tensors_of(batch)) > 0
    assert {each.device.type for each in tensors_of(moved)} == {"meta"}


def test_losses_are_scalars_and_reach_all_that_is_trained(catalog: Catalog, task: Task) -> None:
    module = task.build(0)
    names, reached = set(), set()
    for number, batch in enumerate(batches(catalog, task, BATCHES)):
        losses = module(batch, generator(number))
        names.add(tuple(sorted(losses)))
        assert all(each.numel() == 1 and bool(each.detach().isfinite()) for each in losses.values()), losses
        assert losses["total"].requires_grad
        losses["total"].backward()
        reached |= {name for name, each in module.named_parameters() if each.grad is not None}
        module.zero_grad()
    assert len(names) == 1, "the same names in every step"
    assert reached == {name for name, each in module.named_parameters() if each.requires_grad}


def test_a_step_follows_from_its_generator(catalog: Catalog, task: Task) -> None:
    (batch,) = batches(catalog, task, 1)

    def losses() -> dict[str, float]:
        torch.manual_seed(3)  # as `run_step` does, for layers that draw by themselves
        return {name: float(each.detach()) for name, each in task.build(0)(batch, generator(7)).items()}

    assert losses() == losses()


def test_what_is_frozen_stays(catalog: Catalog, task: Task) -> None:
    module = task.build(0)
    module.eval().train()
    before = frozen_state(module)
    engine = make_engine(module, EngineSettings(deterministic=False), OptimSettings(lr=0.01), CPU, 0, 1)
    for number, batch in enumerate(batches(catalog, task, 2)):
        engine.backward(engine.forward(batch, generator(number))["total"], last=True)
        engine.step(0.01)
    after = frozen_state(module)
    engine.close()
    assert before.keys() == after.keys()
    assert all(torch.equal(values, after[name]) for name, values in before.items())


def test_a_state_and_the_frozen_weights_make_the_network_again(catalog: Catalog, task: Task) -> None:
    """As an evaluation while training makes it, without a file."""
    module = task.build(0)
    frozen = frozen_tensors(module)
    engine = make_engine(module, EngineSettings(deterministic=False), OptimSettings(lr=0.01), CPU, 0, 1)
    (batch,) = batches(catalog, task, 1)
    engine.backward(engine.forward(batch, generator())["total"], last=True)
    engine.step(0.01)
    state = engine.state()
    assert state is not None
    network = fill_network(task.build(0, read_weights=False), {**frozen, **state.parameters})
    assert not network.training
    assert all(torch.equal(each, module.network.state_dict()[name]) for name, each in network.state_dict().items())
    engine.close()


def test_what_is_exported_says_what_it_is(task: Task, tmp_path: Path) -> None:
    network = task.build(4).network.eval()
    path = write_result(str(tmp_path), network, task, {"step": 0})
    exported = task.exported(network)
    read = load_file(path)
    assert read.keys() == exported.keys()
    assert all(torch.equal(values, exported[name]) for name, values in read.items())
    with safe_open(path, framework="pt") as handle:
        assert handle.metadata() == task.metadata()
    assert task.metadata()


def test_an_evaluation_measures_and_changes_nothing(recipe: Recipe, task: Task) -> None:
    evaluation = task.evaluation()
    if evaluation is None:
        return
    assert isinstance(evaluation, Evaluation)
    assert evaluation.every > 0
    network = task.build(0).network.eval()
    before = {name: each.clone() for name, each in network.state_dict().items()}
    with torch.no_grad():
        measured = evaluation.measure(network, CPU)
    assert measured
    assert all(isinstance(float(each), float) for each in measured.values())
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())
