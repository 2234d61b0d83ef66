"""IP-MOT's training module with small parts: what is averaged, who takes part, what does no harm."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.tasks.ipmot_batches import made_batch, made_clip, small_training, small_variant
from trackmill.models.ipmot.clip_records import ClipResult
from trackmill.models.ipmot.trackbook import TrackBookFull
from trackmill.pipeline.tasks.ipmot import module as module_file
from trackmill.pipeline.tasks.ipmot.batch import QueryClip
from trackmill.pipeline.tasks.ipmot.module import IpMotTraining
from trackmill.pipeline.training.engines import make_engine
from trackmill.pipeline.training.engines.base import EngineSettings, OptimSettings
from trackmill.pipeline.training.parameters import count_groups, outline
from trackmill.pipeline.training.recipe import make_recipe, make_task
from trackmill.pipeline.training.recipe_files import load_recipe
from trackmill.schemas.config import ConfigError, merge

CPU = torch.device("cpu")
NOBODY = made_clip(5, ((), ()))
RECIPES = Path(__file__).parents[2] / "jobs" / "recipes"


def losses(module: IpMotTraining, *clips: QueryClip) -> dict[str, Tensor]:
    return module(made_batch(*clips), torch.Generator().manual_seed(0))


def numbers(module: IpMotTraining, *clips: QueryClip) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in losses(module, *clips).items()}


def gradients(module: IpMotTraining, values: dict[str, Tensor]) -> dict[str, Tensor]:
    module.zero_grad()
    values["total"].backward()
    return {name: each.grad.clone() for name, each in module.named_parameters() if each.grad is not None}


def test_clips_of_a_batch_are_averaged_over_their_boxes() -> None:
    module = small_training(alignment=False)
    one, two = made_clip(1), made_clip(2, ((0,), (0,), (0, 1)))
    both, first, second = numbers(module, one, two), numbers(module, one), numbers(module, two)
    assert (both["boxes"], first["boxes"], second["boxes"]) == (5, 6, 4)
    for name in ("tracker", "focal", "l1", "giou", "dem"):
        assert both[name] == pytest.approx((6 * first[name] + 4 * second[name]) / 10, rel=1e-4), name
    assert both["total"] == both["tracker"]
    assert both["positives_track"] == (first["positives_track"] + second["positives_track"]) / 2
    # Somebody without anybody beside them changes no average.
    assert numbers(module, one, NOBODY)["l1"] == first["l1"]


@pytest.mark.parametrize(("triplet", "i2tce"), [(True, True), (True, False), (False, True)])
def test_alignment_is_of_the_positives_with_the_texts_just_learnt(
    triplet: bool, i2tce: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of table 6, by loops over the pool."""
    module = small_training(triplet=triplet, i2tce=i2tce)
    results: list[ClipResult] = []
    run_clip = module_file.run_clip
    monkeypatch.setattr(module_file, "run_clip", lambda *each: results.append(run_clip(*each)) or results[-1])
    found = numbers(module, made_clip(1), made_clip(2, static=True))
    assert ("triplet" in found, "i2tce" in found, "i2t" in found) == (triplet, i2tce, i2tce)
    texts = {}
    if i2tce:
        assert module.book is not None and module.clip is not None
        keys = torch.tensor([100, 101, 102, 103])
        assert set(module.book.keys.tolist()) == {-1, *keys.tolist()}, "nobody of the static clip"
        texts = dict(zip(range(4), module.book.texts(module.clip, keys)))
    far, entropy = 0.0, 0.0
    for pool in results[0].pools:
        rows, ids = pool.embeddings.detach(), pool.ids.tolist()
        margins, entropies = [], []
        for row, own in zip(rows, ids):
            same = [float((row - other).norm()) for other, who in zip(rows, ids) if who == own and other is not row]
            apart = [float((row - other).norm()) for other, who in zip(rows, ids) if who != own]
            if max(same) > 0:
                margins.append(max(max(same) - min(apart) + 0.3, 0))
            if i2tce:
                scores = torch.stack([(row * texts[who]).sum() for who in sorted(texts)])
                entropies.append(float(F.cross_entropy(scores, torch.tensor(own), label_smoothing=0.1)))
        far += sum(margins) / max(1, len(margins)) / 2  # the static clip has none
        entropy += sum(entropies) / max(1, len(entropies)) / 2
    assert len(results[0].pools) == 2
    total = found["tracker"]
    if triplet:
        assert found["triplet"] == pytest.approx(far, rel=1e-4)
        total += 2 * found["triplet"]
    if i2tce:
        assert found["i2tce"] == pytest.approx(entropy, rel=1e-4)
        total += 4 * found["i2tce"]
    assert found["total"] == pytest.approx(total, rel=1e-5)


def test_without_anybody_everything_is_background_and_all_that_trains_has_a_gradient() -> None:
    module = small_training()
    assert module.book is not None
    values = losses(module, NOBODY)
    assert set(values) == set(losses(module, made_clip(1))), "the same names in every step"
    found = gradients(module, values)
    assert set(found) == {name for name, each in module.named_parameters() if each.requires_grad}
    assert all(bool(each.isfinite().all()) for each in found.values())
    assert float(values["total"].detach()) > 0
    assert {float(values[name].detach()) for name in ("boxes", "triplet", "i2tce", "i2t", "l1", "kept")} == {0}
    assert int(module.book.iteration) == 2, "every rank counts every step"


def test_more_people_than_queries_and_somebody_who_never_returns() -> None:
    module = small_training(small_variant(detector=dataclasses.replace(small_variant().detector, queries=2)))
    found = numbers(module, made_clip(1, ((0, 1, 2, 3), (0, 1, 2), (1, 2))))
    assert found["left_over"] > 0
    assert math.isfinite(found["total"])
    alone = numbers(small_training(), made_clip(1, ((0, 1), (0,), (0,))))
    assert math.isfinite(alone["total"])
    assert alone["left_over"] == 0


def test_more_identities_than_the_book_has_room_for_are_an_error_that_names_the_setting() -> None:
    module = small_training()
    people = (tuple(range(14)),)
    for seed in (1, 2):
        losses(module, made_clip(seed, people))
    with pytest.raises(TrackBookFull, match=r"trackbook\.capacity"):
        losses(module, made_clip(3, people))


def test_the_balance_of_queries_is_that_of_the_strategy() -> None:
    """Positives of detect over those of track queries, per clip: 1 + new / tracked with QBS, new / tracked without."""
    clip = made_clip(1, ((0, 1, 2), (0, 1, 2, 3), (0, 1, 2, 3)))
    for qbs in (True, False):
        variant = small_variant(qbs=qbs, iou_threshold=0.0)
        found = numbers(small_training(variant, alignment=False), clip)
        assert found["positives_track"] == 7
        assert found["positives_detect"] == (11 if qbs else 4)
        assert ("dem" in found) is qbs


def test_activation_checkpointing_gives_the_same_gradients_to_the_bit_and_keeps_less() -> None:
    kept, found = [], []
    for checkpointing in (False, True):
        module = small_training(alignment=False)
        settings = EngineSettings(activation_checkpointing=checkpointing)
        engine = make_engine(module, settings, OptimSettings(), CPU, 0, 1)
        weights = {each.untyped_storage().data_ptr() for each in module.parameters()}
        sizes: dict[int, int] = {}

        def note(tensor: Tensor, weights: set[int] = weights, sizes: dict[int, int] = sizes) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            values = engine.forward(made_batch(made_clip(1)), torch.Generator())
        kept.append(sum(sizes.values()))
        found.append(gradients(module, values))
        engine.close()
    assert all(torch.equal(each, found[1][name]) for name, each in found[0].items())
    assert kept[1] < 0.6 * kept[0]


def test_in_bfloat16_losses_are_near() -> None:
    exact, rounded = (engine_losses(EngineSettings(precision=precision)) for precision in ("float32", "bfloat16"))
    assert exact.keys() == rounded.keys()
    for name in ("total", "giou", "i2t"):
        assert rounded[name] == pytest.approx(exact[name], rel=0.1)


def engine_losses(settings: EngineSettings) -> dict[str, float]:
    engine = make_engine(small_training(), settings, OptimSettings(), CPU, 0, 1)
    values = engine.forward(made_batch(made_clip(1)), torch.Generator())
    engine.backward(values["total"], last=True)
    assert math.isfinite(engine.step(1e-3))
    engine.close()
    assert values["total"].dtype == torch.float32
    return {name: float(each.detach()) for name, each in values.items()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"variant": "ip_mot_tny"}}, r"model\.variant: there is no variant 'ip_mot_tny'; did you mean"),
        ({"model": {"changes": {"detector": {"querys": 3}}}}, r"model\.changes: .*did you mean 'detector\.queries'"),
        ({"model": {"changes": {"detector": {"queries": "x"}}}}, r"model\.changes\.detector\.queries = 'x': .* int"),
        ({"model": {"changes": {"detector": {"heads": 7}}}}, r"model\.changes: "),
        ({"model": {"changes": {"track_update": "motr"}}}, r"model\.changes: .*motr"),
        ({"model": {"freeze": ["detecter"]}}, r"model\.freeze: .*did you mean 'detector'"),
        ({"model": {"weights": "no_such_file.pth"}}, r"model\.weights: no file at .*no_such_file\.pth"),
        ({"model": {"detector_weights": "none.pth"}}, r"model\.detector_weights: no file at .*none\.pth"),
        (
            {"model": {"weights": "a", "detector_weights": "b"}},
            r"model\.detector_weights: model\.weights has a detector",
        ),
        (
            {"model": {"weights": "a", "backbone_weights": "b"}},
            r"model\.backbone_weights: model\.weights has a backbone",
        ),
        ({"loss": {"layers": 5}}, r"loss\.layers = 5: ip_mot_tiny has 2 decoder layers; set loss\.layers = 2"),
        ({"model": {"changes": {"embedding": 0}}}, r"loss\.alignment: ip_mot_tiny has no embeddings to align"),
        ({"trackbook": {"clip": "vit_b_61"}}, r"trackbook\.clip: .*did you mean 'vit_b_16'"),
        ({"trackbook": {"clip_changes": {"text": {"width": 7}}}}, r"trackbook\.clip_changes: "),
        ({"trackbook": {"clip_weights": "none.pt"}}, r"trackbook\.clip_weights: no file at .*none\.pt"),
        (
            {"trackbook": {"clip": "vit_l_14"}},
            r"model\.changes\.embedding: .* set model\.changes = \{embedding = 768\}",
        ),
        ({"trackbook": {"capcity": 1}}, r"unknown key 'trackbook\.capcity'; did you mean 'trackbook\.capacity'"),
        ({"trackbook": {"capacity": 0}}, r"trackbook\.capacity: "),
        ({"objects": {"masklets": False}}, r"objects\.chains: nothing says who is who"),
        ({"clips": {"frames": [[1, 2]]}}, r"clips\.frames: should begin with epoch 0"),
    ],
)
def test_what_does_not_go_together_is_said_with_its_key(changes: dict[str, Any], message: str) -> None:
    small = {"variant": "ip_mot_tiny", "changes": {"detector": {"decoder_layers": 2}, "embedding": 512}}
    values = merge({"task": "ipmot", "model": small, "loss": {"layers": 2}}, changes)
    with pytest.raises(ConfigError, match=message):
        make_task(make_recipe(values, "case"))


def test_alignment_without_clip_is_an_error_that_says_where_clip_is_from(tmp_path: Path) -> None:
    values: dict[str, Any] = {"task": "ipmot"}
    for read_weights in (True, False):
        with pytest.raises(
            ConfigError, match=r"trackbook\.clip_weights: .*github.com/openai/CLIP.*loss\.alignment = false"
        ):
            make_task(make_recipe(values, "case")).build(0, read_weights)
    for loss in ({"alignment": False}, {"i2tce": False}):  # the triplet loss needs no texts
        assert make_task(make_recipe({**values, "loss": loss}, "case")).build(0, read_weights=False)
    (tmp_path / "clip.pt").write_bytes(b"")
    unused = {**values, "loss": {"alignment": False}, "trackbook": {"clip_weights": str(tmp_path / "clip.pt")}}
    with pytest.warns(UserWarning, match=r"trackbook\.clip_weights is not read"):
        make_task(make_recipe(unused, "case"))


@pytest.mark.parametrize(
    ("name", "epochs", "falls", "lengths", "decay", "offsets", "points"),
    [
        ("ip_mot", 120, (60,), ((0, 2), (60, 3), (100, 4)), 1e-4, 2e-5, None),
        ("ip_mot_star", 120, (60,), ((0, 2), (60, 3), (100, 4)), 1e-4, 2e-5, 2e-5),
        ("ip_mot_dancetrack", 20, (10,), ((0, 2), (6, 3), (10, 4), (14, 5)), 5e-4, 1e-5, None),
        ("ip_mot_ablation", 10, (), ((0, 2), (5, 3)), 1e-4, 2e-5, None),
    ],
)
def test_recipes_have_the_schedules_of_the_specification(
    name: str,
    epochs: int,
    falls: tuple[int, ...],
    lengths: tuple[tuple[int, int], ...],
    decay: float,
    offsets: float,
    points: float | None,
) -> None:
    """Section 7; without texts, since CLIP is not at hand."""
    recipe = load_recipe(name, {"loss": {"i2tce": False}}, RECIPES)
    schedule, optim, clips = recipe.schedule, recipe.optim, recipe.clips  # type: ignore[attr-defined]
    assert (schedule.epochs, schedule.milestone_epochs, clips.frames) == (epochs, falls, lengths)
    assert (schedule.kind == "constant") is (not falls)
    assert (optim.lr, optim.weight_decay, optim.clip_norm, recipe.data.batch_size) == (2e-4, decay, 0.1, 8)
    groups = count_groups(outline(make_task(recipe), 0), optim)
    rates = {group.match: group.lr_factor * optim.lr for group in groups}
    assert rates["detector.backbone.*"] == pytest.approx(2e-5)
    assert rates["*sampling_offsets*"] == pytest.approx(offsets)
    assert rates.get("*reference_points*") == (points and pytest.approx(points))
    assert all(group.weight_decay == decay for group in groups)
