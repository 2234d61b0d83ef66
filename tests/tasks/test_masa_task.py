"""MASA's task: which objects a picture gives, what is trained and what stays, and the recipes that say so."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

pytest.importorskip("albumentations")

import trackmill.models.masa
from trackmill.models.masa.losses import LossSettings
from trackmill.pipeline.loader.views import ViewSettings
from trackmill.pipeline.shards.tar import BadShard
from trackmill.pipeline.tasks.association_benchmark import EvaluationSettings
from trackmill.pipeline.tasks.masa.batch import PairBatch
from trackmill.pipeline.tasks.masa.examples import Example, MakeMasaExample
from trackmill.pipeline.tasks.masa.module import MasaTraining
from trackmill.pipeline.tasks.masa.objects import ObjectSettings, draw_picture, random_boxes
from trackmill.pipeline.tasks.masa.settings import LossSection, ModelSettings
from trackmill.pipeline.tasks.masa.task import MasaTask
from trackmill.pipeline.training.recipe_files import load_recipe
from trackmill.schemas.config import ConfigError

RECIPES = Path(__file__).parents[2] / "jobs" / "recipes"
OFFICIAL = ("masa_r50", "masa_sam_vitb", "masa_sam_vith", "masa_detic", "masa_gdino")
SMALL_VIEWS = ViewSettings(
    size=96, rotate=0, shear=0, scale=(1, 1), translate=0.05, resize=(0.8, 1.4), mixup=0, clip=True, min_side=6
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclasses.dataclass(frozen=True)
class Stored:
    """A sample as the loader gives it: coloured squares on noise, two frames if it is a clip."""

    key: str = "a"
    origin: str = "videos/a.mp4"
    num_frames: int = 1
    proposed: tuple[tuple[int, ...], ...] = ((5, 5, 45, 45), (50, 10, 90, 60), (20, 60, 70, 85))
    annotated: tuple[tuple[int, ...], ...] | None = None
    first_frame_with: int = 0

    def image(self, frame: int) -> np.ndarray:
        drawn = np.random.default_rng(frame).integers(90, 110, (90, 100, 3)).astype(np.uint8)
        for place, (x0, y0, x1, y1) in enumerate(self.proposed):
            drawn[y0:y1, x0:x1, place % 3] = 200 + frame
        return drawn

    def proposals(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        boxes = self.proposed if frame >= self.first_frame_with else ()
        scores = np.linspace(0.9, 0.5, len(boxes)).astype(np.float32)
        return np.array(boxes, np.float32).reshape(-1, 4), scores

    def objects(self, frame: int) -> tuple[np.ndarray, np.ndarray] | None:
        if self.annotated is None:
            return None
        boxes = np.array(self.annotated, np.float32).reshape(-1, 4)
        return boxes, np.arange(len(boxes), dtype=np.int64) + 70


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _make(objects: ObjectSettings | None = None, **views: Any) -> MakeMasaExample:
    return MakeMasaExample(objects=objects or ObjectSettings(), views=SMALL_VIEWS.model_copy(update=views))


def test_proposals_are_the_objects() -> None:
    picture = draw_picture(Stored(annotated=((0, 0, 9, 9),)), _rng(), ObjectSettings())
    assert picture.boxes.tolist() == [list(box) for box in Stored().proposed]
    assert picture.ids.tolist() == [1, 2, 3]
    few = draw_picture(Stored(), _rng(), ObjectSettings(min_score=0.6))
    assert len(few.ids) == 2
    wide = draw_picture(Stored(), _rng(), ObjectSettings(min_side=30))
    assert wide.boxes.tolist() == [[5, 5, 45, 45], [50, 10, 90, 60]]
    drawn = {tuple(draw_picture(Stored(), _rng(seed), ObjectSettings(maximum=1)).boxes[0]) for seed in range(20)}
    assert drawn == set(Stored().proposed), "not always the same ones"


def test_annotated_objects_stand_in_where_there_are_no_proposals() -> None:
    picture = draw_picture(Stored(proposed=(), annotated=((1, 2, 30, 40), (9, 9, 9, 20))), _rng(), ObjectSettings())
    assert picture.boxes.tolist() == [[1, 2, 30, 40]] and picture.ids.tolist() == [1]


def test_random_boxes_lie_in_the_picture_and_have_the_stated_size() -> None:
    settings = ObjectSettings(random=200)
    boxes = random_boxes(90, 100, _rng(), settings)
    assert boxes.shape == (200, 4) and boxes.dtype == np.float32
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= 100).all() and (boxes[:, 3] <= 90).all()
    heights, widths = (boxes[:, 3] - boxes[:, 1]), (boxes[:, 2] - boxes[:, 0])
    assert (heights >= 9 - 1e-3).all() and (heights <= 45 + 1e-3).all()
    assert (widths / heights >= 0.4 - 1e-3).all() and (widths / heights <= 1.35 + 1e-3).all()
    picture = draw_picture(Stored(proposed=()), _rng(), ObjectSettings(random=5))
    assert picture.ids.tolist() == [1, 2, 3, 4, 5]


def test_a_frame_of_a_clip_is_drawn_and_one_with_objects_if_there_is() -> None:
    seen = {int(draw_picture(Stored(num_frames=4), _rng(seed), ObjectSettings()).image.max()) for seed in range(40)}
    assert seen == {200, 201, 202, 203}
    late = Stored(num_frames=4, first_frame_with=2)
    seen = {int(draw_picture(late, _rng(seed), ObjectSettings()).image.max()) for seed in range(40)}
    assert seen == {202, 203}


def test_an_example_follows_from_the_generator() -> None:
    make = pickle.loads(pickle.dumps(_make(occluders=2, mixup=1.0)))
    first, again, other = (make(Stored(), _rng(seed), lambda: Stored(key="b", origin="b.jpg")) for seed in (3, 3, 4))
    assert isinstance(first, Example) and first.origins == ("videos/a.mp4", "b.jpg")
    for one, two in ((first.key, again.key), (first.reference, again.reference)):
        assert np.array_equal(one.image, two.image) and np.array_equal(one.boxes, two.boxes)
    assert not np.array_equal(first.key.image, other.key.image)
    assert set(first.key.ids.tolist()) <= set(range(1, 7))


def test_a_picture_is_not_blended_into_itself() -> None:
    alone = _make(mixup=1.0)(Stored(), _rng(), Stored)
    assert set(alone.key.ids.tolist()) | set(alone.reference.ids.tolist()) <= {1, 2, 3}
    # Without MixUp and patches no second picture is asked for.
    _make()(Stored(), _rng(), lambda: pytest.fail("asked for another sample"))


def test_a_picture_without_objects_is_passed_over() -> None:
    empty = Stored(key="empty", proposed=())
    example = _make()(empty, _rng(), Stored)
    assert example.origins == (Stored().origin,) * 2
    with pytest.raises(BadShard, match="empty: neither it nor its neighbours have an object"):
        _make()(empty, _rng(), lambda: empty)


LITE = ModelSettings(freeze=("backbone",))
CONTRAST = LossSection(detection=False, negatives="batch", ignore_iou=0.3, auxiliary_weight=0.0)


def _task(model: ModelSettings = LITE, loss: LossSection = CONTRAST, **rest: Any) -> MasaTask:
    parts = {"objects": ObjectSettings(), "views": SMALL_VIEWS, "evaluation": EvaluationSettings()} | rest
    return MasaTask(model, parts["objects"], parts["views"], loss, parts["evaluation"])


def _batch(task: MasaTask, count: int = 3) -> PairBatch:
    make = task.make_example()
    samples = [Stored(key=f"{place}", origin=f"{place % 2}.mp4") for place in range(count)]
    return task.collate([make(sample, _rng(place), Stored) for place, sample in enumerate(samples)])


@pytest.mark.filterwarnings("ignore:the frozen backbone")
def test_a_batch_is_tensors_in_order() -> None:
    batch = _batch(_task())
    for side in (batch.key, batch.reference):
        assert side.images.shape == (3, 3, 96, 96) and side.images.dtype == torch.uint8
        assert len(side.boxes) == len(side.ids) == 3
        for boxes, ids in zip(side.boxes, side.ids):
            assert boxes.dtype == torch.float32 and ids.dtype == torch.int64 and boxes.shape == (len(ids), 4)
    assert batch.origins == [("0.mp4", "0.mp4"), ("1.mp4", "1.mp4"), ("0.mp4", "0.mp4")]


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.filterwarnings("ignore:the frozen backbone")
def test_training_the_band_head_lowers_the_loss_and_touches_nothing_else() -> None:
    task = _task()
    module = task.build(0)
    assert all(name.startswith("network.") for name, _ in module.named_parameters())
    trained = {name: each for name, each in module.named_parameters() if each.requires_grad}
    assert {name.split(".")[1] for name in trained} == {"track_head"}
    before = {name: each.clone() for name, each in module.state_dict().items()}
    batch = _batch(task)
    optimiser = torch.optim.SGD(trained.values(), lr=0.05)
    losses = []
    for _ in range(6):
        found = module(batch, _generator())
        found["total"].backward()
        assert all(each.grad is not None for each in trained.values()), "each is reached, or DDP would wait for ever"
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(found["total"].detach()))
    assert losses[-1] < 0.9 * losses[0], losses
    changed = {name for name, each in module.state_dict().items() if not torch.equal(each, before[name])}
    assert changed and changed <= set(trained)


def test_every_loss_and_the_rules_of_batch_norms() -> None:
    task = _task(ModelSettings(), LossSection(proposals=50, samples=64))
    module = task.build(0)
    batch = _batch(task, 2)
    before = {name: each.clone() for name, each in module.state_dict().items()}
    losses = module(batch, _generator())
    assert {"rpn_cls", "rpn_bbox", "roi_cls", "roi_bbox", "track", "track_aux", "total"} <= losses.keys()
    losses["total"].backward()
    without = {name for name, each in module.named_parameters() if each.requires_grad and each.grad is None}
    assert without == set()
    moved = {name for name, each in module.state_dict().items() if not torch.equal(each, before[name])}
    # Two passes through the pyramid, none that counts in the backbone.
    assert moved and all(name.startswith("network.masa_adapter.0.") for name in moved)
    counters = [each for name, each in module.state_dict().items() if name in moved and name.endswith("_tracked")]
    assert {int(each) for each in counters} == {2}


@pytest.mark.filterwarnings("ignore:the frozen backbone")
def test_frozen_parts_stay_in_evaluation_mode() -> None:
    module = _task(ModelSettings(freeze=("backbone", "masa_adapter.0")), LossSection()).build(0)
    for _ in range(2):
        module.eval().train()
        assert not module.network.masa_adapter[0].training and not module.network.backbone.training
        assert module.network.masa_adapter[1].training and module.network.rpn_head.training
    assert not any(each.requires_grad for each in module.network.masa_adapter[0].parameters())
    assert any(each.requires_grad for each in module.network.masa_adapter[1].parameters())


@pytest.mark.filterwarnings("ignore:the frozen backbone")
def test_views_without_a_common_object_count_and_lead_nowhere() -> None:
    task = _task()
    module, batch = task.build(0), _batch(task, 2)
    for ids in batch.reference.ids:
        ids += 100
    losses = module(batch, _generator())
    assert float(losses["total"].detach()) == 0
    losses["total"].backward()
    gradients = [each.grad for each in module.parameters() if each.requires_grad]
    assert all(each is not None and not each.any() for each in gradients)


@pytest.mark.filterwarnings("ignore:the frozen backbone")
def test_starting_weights_follow_from_the_seed_and_go_out_readable(tmp_path: Path) -> None:
    task = _task()
    one, same, other = (task.build(seed).network.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    path = tmp_path / "model.safetensors"
    save_file(one, path, task.metadata())
    loaded = trackmill.models.masa.load("masa_lite0", path)
    assert all(torch.equal(each, one[name]) for name, each in loaded.state_dict().items())
    again = _task(ModelSettings(weights=str(path))).build(5).network.state_dict()
    assert all(torch.equal(again[name], one[name]) for name in one)
    backbone = _task(ModelSettings(backbone_weights=str(path))).build(5).network.state_dict()
    fresh = task.build(5).network.state_dict()
    for name, values in backbone.items():
        assert torch.equal(values, (one if name.startswith("backbone.") else fresh)[name]), name


def test_a_backbone_with_random_weights_is_warned_of() -> None:
    with pytest.warns(
        UserWarning, match=r"^the frozen backbone of masa_lite0 .*random weights.*model\.backbone_weights"
    ):
        _task().build(0)
    with pytest.warns(UserWarning, match=r"^the backbone of masa_r50 has random weights"):
        _task(ModelSettings(variant="masa_r50")).build(0)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"variant": "masa_r5"}, r"model\.variant: there is no variant 'masa_r5'; did you mean 'masa_r50'"),
        ({"freeze": ("backbon",)}, r"model\.freeze: masa_lite0 has no part 'backbon'; did you mean 'backbone'"),
        ({"freeze": ("x",)}, r"has no part 'x'; known: backbone, masa_adapter, rpn_head, roi_head, track_head"),
        ({"weights": "/nowhere/model.pth"}, r"model\.weights: no file at /nowhere/model.pth"),
        ({"backbone_weights": "memory://user:secret@nowhere/sam.pth"}, r"model\.backbone_weights: .*holds a user name"),
        ({"weights": "imagenet", "variant": "masa_r50"}, r'model\.weights: "imagenet" is for masa_lite0'),
    ],
)
def test_wrong_settings_are_told_before_anything_is_built(model: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        _task(ModelSettings(**model))
    assert "secret" not in str(raised.value)


def test_views_must_fit_the_network() -> None:
    with pytest.raises(ConfigError, match=r"views\.size: masa_sam_vitb takes at most 1024 pixels, found 1280"):
        _task(ModelSettings(variant="masa_sam_vitb"), views=ViewSettings(size=1280))


def test_default_losses_are_the_released_ones() -> None:
    assert LossSection().settings() == LossSettings()


def test_measuring_association(tmp_path: Path) -> None:
    """Two squares that keep their colours, crossing: any network tells them apart by their pixels."""
    rows = []
    for frame in range(1, 8):
        picture = np.random.default_rng(frame).integers(90, 110, (64, 96, 3)).astype(np.uint8)
        for name, (x, y), colour in ((1, (5 + 6 * frame, 5), (220, 30, 30)), (2, (60 - 6 * frame, 36), (30, 30, 220))):
            picture[y : y + 20, x : x + 20] = colour
            rows.append(f"{frame},{name},{x + 1},{y + 1},20,20,1,1,1")
        folder = tmp_path / "S" / "img1"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{frame:06d}.png")
    (tmp_path / "S" / "gt").mkdir()
    (tmp_path / "S" / "gt" / "gt.txt").write_text("\n".join(rows) + "\n")
    task = _task(ModelSettings(), evaluation=EvaluationSettings(gt=str(tmp_path), stride=1, gaps=(2,)))
    evaluation = task.evaluation()
    assert evaluation is not None and evaluation.every == 500
    network = task.build(0).network.eval()
    found = evaluation.measure(network, torch.device("cpu"))
    assert found["rank1@2"] == 100 and {"AssA", "IDF1", "mAP@2"} <= found.keys()
    assert _task(ModelSettings()).evaluation() is None

    # What it reads is looked at before the first step.
    evaluation.check()
    (tmp_path / "S" / "img1" / "000001.png").unlink()
    with pytest.raises(ConfigError, match=r"evaluation\.frames: .*S"):
        evaluation.check()
    wrong = _task(ModelSettings(), evaluation=EvaluationSettings(gt=str(tmp_path / "nothing"))).evaluation()
    assert wrong is not None
    with pytest.raises(ConfigError, match=r"evaluation\.gt: .*nothing"):
        wrong.check()


def _recipe(name: str, **overrides: Any) -> Any:
    return load_recipe(name, overrides, RECIPES)


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_recipes_are_the_released_training(name: str) -> None:
    found = _recipe(name)
    assert (found.task, found.model.variant) == ("masa", name)
    assert found.views == ViewSettings() and found.loss.settings() == LossSettings()
    assert (found.data.batch_size, found.optim.accumulate) == (64, 1)
    optim = found.optim
    assert (optim.name, optim.lr, optim.momentum, optim.weight_decay, optim.clip_norm) == ("sgd", 0.08, 0.9, 1e-4, 35)
    schedule = found.schedule
    assert (schedule.steps, schedule.kind, schedule.milestones, schedule.gamma) == (
        12 * 200_000 // 64, "step", (8 * 200_000 // 64, 11 * 200_000 // 64), 0.1,
    )  # fmt: skip
    assert (schedule.warmup_steps, schedule.warmup_factor) == (1000, 0.001)
    assert found.engine.precision == "float32"


def test_the_laptop_recipe_trains_the_head_alone() -> None:
    found = _recipe("masa_lite0")
    task = MasaTask(found.model, found.objects, found.views, found.loss, found.evaluation)
    module = task.build(found.seed)
    assert isinstance(module, MasaTraining)
    assert {name.split(".")[1] for name, each in module.named_parameters() if each.requires_grad} == {"track_head"}
    pretrained = trackmill.models.masa.load("masa_lite0", "imagenet").backbone.state_dict()
    found_backbone = module.network.backbone.state_dict()
    assert all(torch.equal(found_backbone[name], each) for name, each in pretrained.items())
    losses = module(_batch(task, 2), _generator())
    assert bool(losses["total"].isfinite()) and float(losses["positives"]) >= 1


def test_no_recipe_is_forgotten() -> None:
    assert {path.stem for path in RECIPES.glob("masa_*.toml")} == {*OFFICIAL, "masa_lite0", "masa_lite0_colour"}
