"""The plain engine on one and two ranks: what every engine promises (`test_engine_deepspeed.py` asks ZeRO the same)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.engine_ranks import CPU, Outcome, Run, train, train_on_ranks, write_state
from tests.training.tiny_module import TinyModule, tiny_batch, tiny_module
from trackmill.models.layers.deform_conv import DeformConvNorm
from trackmill.pipeline.tasks.base import TrainingModule
from trackmill.pipeline.training.engines import make_engine
from trackmill.pipeline.training.engines.activation_checkpointing import blocks_of, checkpoint_blocks
from trackmill.pipeline.training.engines.base import EngineSettings, EngineState, OptimSettings
from trackmill.pipeline.training.engines.ddp_module import sync_batch_norms, to_device

TORCH = EngineSettings()
SGD = OptimSettings(name="sgd", clip_norm=1.0, decay_norms=False, weight_decay=1e-2)
ADAMW = OptimSettings(name="adamw", clip_norm=1.0, weight_decay=1e-2)


def same(first: EngineState | None, second: EngineState | None, **tolerance: float) -> None:
    """Two states hold the same, to the bit without a tolerance."""
    assert first is not None and second is not None
    assert first.numbers == second.numbers
    for mine, other in ((first.parameters, second.parameters), (first.moments, second.moments)):
        assert mine.keys() == other.keys()
        for name, each in mine.items():
            torch.testing.assert_close(each, other[name], **(tolerance or {"rtol": 0, "atol": 0}), msg=name)


@pytest.mark.parametrize("optim", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_losses_fall_and_frozen_parts_stay(optim: OptimSettings) -> None:
    before = tiny_module().state_dict()
    run = train(Run(engine=TORCH, optim=optim, steps=30, batch_norm=True))
    assert sum(run.losses[-5:]) < 0.6 * sum(run.losses[:5])
    assert run.state is not None
    assert not any("frozen" in name and "running" not in name and "num_b" not in name for name in run.state.parameters)
    assert torch.equal(run.state.parameters["network.frozen.1.running_mean"], before["network.frozen.1.running_mean"])
    trained = {name for name, each in tiny_module().named_parameters() if each.requires_grad}
    assert {name.rsplit("/", 1)[0] for name in run.state.moments} == trained


@pytest.mark.parametrize("optim", [SGD, ADAMW], ids=["sgd", "adamw"])
@pytest.mark.parametrize("done", [0, 3])
def test_a_saved_run_goes_on_to_the_bit(optim: OptimSettings, done: int, tmp_path: Path) -> None:
    run = Run(engine=TORCH, optim=optim, batch_norm=True, noise=0.1)
    whole = train(replace(run, steps=done + 5))
    train(replace(run, steps=done, save=str(tmp_path / "state")))
    rest = train(replace(run, first=done, steps=5, load=str(tmp_path / "state")))
    assert rest.losses == whole.losses[done:] and rest.norms == whole.norms[done:]
    same(rest.state, whole.state)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_parts_of_a_batch_equal_the_batch(accumulate: int) -> None:
    whole = train(Run(engine=TORCH, optim=SGD))
    parts = train(Run(engine=TORCH, optim=SGD.model_copy(update={"accumulate": accumulate})))
    assert parts.losses == pytest.approx(whole.losses, rel=1e-5)
    same(parts.state, whole.state, rtol=1e-4, atol=1e-6)


def test_one_step_of_sgd_by_hand() -> None:
    """Norm before clipping, clipping, decay of matrices only, and the rate, from gradients computed apart."""
    module = tiny_module(batch_norm=False)
    module(tiny_batch(0), torch.Generator())["total"].backward()
    gradients = {name: each.grad for name, each in module.named_parameters() if each.grad is not None}
    norm = math.sqrt(sum(float(each.double().square().sum()) for each in gradients.values()))
    limit = norm / 3
    run = train(Run(engine=TORCH, optim=SGD.model_copy(update={"clip_norm": limit}), steps=1, lr=0.5))
    assert run.norms == pytest.approx([norm], rel=1e-5)
    assert run.state is not None
    for name, each in module.named_parameters():
        if name in gradients:
            decay = 1e-2 * each.detach() if each.ndim > 1 else 0
            expected = each.detach() - 0.5 * (gradients[name] / 3 + decay)
            torch.testing.assert_close(run.state.parameters[name], expected, rtol=1e-4, atol=1e-6)


def test_no_clipping_where_none_is_asked_for() -> None:
    free, wide = (train(Run(engine=TORCH, optim=SGD.model_copy(update={"clip_norm": each}))) for each in (0, 1e9))
    assert free.losses == wide.losses and free.norms == wide.norms


def test_a_part_without_work_counts_as_a_zero_gradient() -> None:
    """Its momentum and decay go on, as they would if another rank had used it."""
    used = train(Run(engine=TORCH, optim=SGD, steps=2, seldom=(1e-30,)))
    unused = train(Run(engine=TORCH, optim=SGD, steps=2, seldom=(0.0,)))
    same(unused.state, used.state, rtol=0, atol=1e-12)
    assert unused.state is not None
    before = tiny_module(False).network.seldom.weight.detach()
    assert not torch.equal(unused.state.parameters["network.seldom.weight"], before), "matrices decay without gradient"


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    engine = make_engine(tiny_module(), TORCH, SGD, CPU, 0, 1)
    before = engine.state()
    batch = tiny_batch(0) | {"targets": torch.full((8, 2), torch.inf)}
    engine.backward(engine.forward(batch, torch.Generator())["total"], last=True)
    assert not math.isfinite(engine.step(0.1))
    after = engine.state()
    assert before is not None and after is not None and after.numbers == {"steps": 0}
    for name, each in before.parameters.items():
        assert torch.equal(each, after.parameters[name]), name
    engine.backward(engine.forward(tiny_batch(0), torch.Generator())["total"], last=True)
    assert math.isfinite(engine.step(0.1)), "nothing of the bad gradients is left"


def test_a_batch_that_overflows_the_statistics_leaves_them_as_they_were() -> None:
    """The variance of its values is infinite, the batch norm's output, the loss and all gradients are finite."""
    engine = make_engine(tiny_module(), TORCH, SGD, CPU, 0, 1)
    before = engine.state()
    batch = tiny_batch(0)
    batch["images"] = batch["images"] * 1e22
    engine.backward(engine.forward(batch, torch.Generator())["total"], last=True)
    assert not engine.module.network.blocks[0].norm.running_var.isfinite().all(), "it does overflow"
    engine.step(0.1)
    after = engine.state()
    assert before is not None and after is not None
    for name, each in after.parameters.items():
        assert each.isfinite().all(), name
        assert torch.equal(each, before.parameters[name]) or "running" not in name
    assert engine.kept_statistics <= 1


def test_bfloat16_keeps_float32_weights() -> None:
    """Products are rounded to 8 bits, so losses are near those of float32 and not the same; weights stay float32."""
    exact = train(Run(engine=TORCH, optim=SGD, steps=6))
    rounded = train(Run(engine=EngineSettings(precision="bfloat16"), optim=SGD, steps=6))
    assert rounded.losses != exact.losses
    assert rounded.losses == pytest.approx(exact.losses, rel=0.05)
    assert rounded.state is not None
    assert {each.dtype for each in rounded.state.parameters.values()} <= {torch.float32, torch.int64}


@pytest.mark.parametrize("gradients", [True, False])
def test_deformable_convolution_stays_float32_under_autocast(gradients: bool) -> None:
    """torchvision's operator for CPUs has no half precision; the result is that of the same values in float32."""
    generator = torch.Generator().manual_seed(0)
    layer = DeformConvNorm(16)
    values, offsets, weights = (torch.rand(1, each, 5, 5, generator=generator).bfloat16() for each in (16, 18, 9))
    with torch.set_grad_enabled(gradients):
        expected = layer(values.float(), offsets.float(), weights.float())
        with torch.autocast("cpu", torch.bfloat16):
            result = layer(values, offsets, weights)
    assert result.dtype == torch.float32 and torch.equal(result, expected)
    assert result.requires_grad == gradients


def test_loss_scale_of_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Overflow halves the scale and makes no step; 2000 good steps double it; it is saved. Run on a CPU for once."""
    monkeypatch.setattr("trackmill.pipeline.training.engines.torch_engine.prepare_numerics", lambda *_: None)
    settings = EngineSettings(precision="float16")
    engine = make_engine(tiny_module(), settings, SGD, CPU, 0, 1)

    def step(targets: float) -> float:
        batch = tiny_batch(0) | {"targets": torch.full((8, 2), targets)}
        engine.backward(engine.forward(batch, torch.Generator())["total"], last=True)
        return engine.step(1e-3)

    state = engine.state()
    assert state is not None and state.numbers == {"steps": 0, "loss_scale": 65536.0, "good_steps": 0}
    assert not math.isfinite(step(1e6))
    state = engine.state()
    assert state is not None and state.numbers == {"steps": 0, "loss_scale": 32768.0, "good_steps": 0}
    state.numbers["good_steps"] = 1999
    engine.load(state)
    norm = step(1.0)
    exact = make_engine(tiny_module(), TORCH, SGD, CPU, 0, 1)
    batch = tiny_batch(0) | {"targets": torch.ones(8, 2)}
    exact.backward(exact.forward(batch, torch.Generator())["total"], last=True)
    assert norm == pytest.approx(exact.step(1e-3), rel=0.02), "the norm is that of the gradients without the scale"
    state = engine.state()
    assert state is not None and state.numbers == {"steps": 1, "loss_scale": 65536.0, "good_steps": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.parameters.pop("network.head.bias"), r"network\.head\.bias is missing"),
        (lambda state: state.parameters.update(extra=torch.zeros(1)), "extra is not known"),
        (
            lambda state: state.parameters.update({"network.head.bias": torch.zeros(5)}),
            r"network\.head\.bias has the shape \(5,\), not \(2,\)",
        ),
        (lambda state: state.moments.clear(), r"moments .*weight/momentum_buffer is missing"),
        (lambda state: state.numbers.clear(), "how many optimiser steps"),
    ],
)
def test_a_state_of_something_else_is_refused_and_changes_nothing(change: Any, message: str) -> None:
    engine = make_engine(tiny_module(), TORCH, SGD, CPU, 0, 1)
    before, given = engine.state(), make_engine(tiny_module(seed=1), TORCH, SGD, CPU, 0, 1).state()
    change(given)
    with pytest.raises(ValueError, match=message):
        engine.load(given)
    same(engine.state(), before)


def test_what_cannot_work_is_said_at_once() -> None:
    with pytest.raises(ValueError, match=r'precision = "float16" needs a GPU'):
        make_engine(tiny_module(), EngineSettings(precision="float16"), SGD, CPU, 0, 1)
    with pytest.raises(ValueError, match="nothing to train"):
        make_engine(tiny_module().requires_grad_(False), TORCH, SGD, CPU, 0, 1)
    with pytest.raises(ValueError, match=r"weight is torch\.bfloat16"):
        make_engine(tiny_module().bfloat16(), TORCH, SGD, CPU, 0, 1)


# Two ranks -----------------------------------------------------------------------------------------------------------

HALF_USED, UNUSED = (1.0, 0.0), (0.0, 0.0)
CASES = {
    "sgd": Run(engine=TORCH, optim=SGD),
    "adamw": Run(engine=TORCH, optim=ADAMW),
    "parts": Run(engine=TORCH, optim=SGD.model_copy(update={"accumulate": 2})),
    "used by one rank": Run(engine=TORCH, optim=SGD, seldom=HALF_USED),
    "used by none": Run(engine=TORCH, optim=SGD, seldom=UNUSED),
    "used at first": Run(engine=TORCH, optim=SGD, seldom_later=UNUSED),
    "parts, used by one rank": Run(engine=TORCH, optim=SGD.model_copy(update={"accumulate": 2}), seldom=HALF_USED),
    "batch norm": Run(engine=TORCH, optim=SGD, batch_norm=True, noise=0.1),
}


@pytest.fixture(scope="module")
def on_two_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    folder = tmp_path_factory.mktemp("ranks")
    runs = [replace(run, save=str(folder / str(index))) for index, run in enumerate(CASES.values())]
    return dict(zip(CASES, train_on_ranks(runs, 2, folder), strict=True))


@pytest.mark.parametrize("case", ["sgd", "adamw", "parts", "used by none", "used at first"])
def test_two_ranks_equal_one_on_the_joined_batch(case: str, on_two_ranks: dict[str, Outcome]) -> None:
    alone, joined = train(CASES[case]), on_two_ranks[case]
    assert joined.losses == pytest.approx(alone.losses, rel=1e-5)
    assert joined.norms == pytest.approx(alone.norms, rel=1e-4)
    same(joined.state, alone.state, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("case", ["used by one rank", "parts, used by one rank"])
def test_a_part_that_only_one_rank_uses_is_averaged(case: str, on_two_ranks: dict[str, Outcome]) -> None:
    """Rank 0 uses the head on its half of the batch, so the mean over ranks is half of what rank 0 sees."""
    joined = on_two_ranks[case]

    class Half(TinyModule):
        def forward(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
            images, targets = batch["images"], batch["targets"]
            parts = len(images) // width
            losses = []
            for index, (some, aims) in enumerate(zip(images.split(width), targets.split(width), strict=True)):
                one = {"images": some, "targets": aims, "seldom": torch.tensor(1.0 - index % 2)}
                losses.append(super().forward(one, generator)["total"])
            return {"total": torch.stack(losses).sum() / parts}

    accumulate = CASES[case].optim.accumulate
    width = 8 // (2 * accumulate)
    module = Half(batch_norm=False)
    module.load_state_dict(tiny_module(False).state_dict())
    engine = make_engine(module, TORCH, SGD, CPU, 0, 1)
    losses = []
    for step in range(4):
        total = engine.forward(tiny_batch(step), torch.Generator())["total"]
        engine.backward(total, last=True)
        engine.step(0.05)
        losses.append(float(total.detach()))
    assert joined.losses == pytest.approx(losses, rel=1e-5)
    same(joined.state, engine.state(), rtol=1e-3, atol=1e-5)


def test_a_state_of_two_ranks_goes_on_alone(on_two_ranks: dict[str, Outcome], tmp_path: Path) -> None:
    saved = on_two_ranks["sgd"].state
    assert saved is not None
    write_state(saved, str(tmp_path))
    rest = train(replace(CASES["sgd"], first=4, load=str(tmp_path)))
    assert rest.losses == pytest.approx(train(replace(CASES["sgd"], steps=8)).losses[4:], rel=1e-4)


@pytest.mark.slow
def test_a_state_of_two_ranks_goes_on_on_four(on_two_ranks: dict[str, Outcome], tmp_path: Path) -> None:
    saved = on_two_ranks["adamw"].state
    assert saved is not None
    write_state(saved, str(tmp_path / "state"))
    (rest,) = train_on_ranks([replace(CASES["adamw"], first=4, load=str(tmp_path / "state"))], 4, tmp_path)
    assert rest.losses == pytest.approx(train(replace(CASES["adamw"], steps=8)).losses[4:], rel=1e-4)


# What is put around the module ----------------------------------------------------------------------------------------


def test_recomputed_activations_give_the_same_to_the_bit() -> None:
    """Losses, gradients (through the weights), batch statistics and what the generator drew."""
    run = Run(engine=TORCH, optim=SGD, batch_norm=True, noise=0.1)
    kept, recomputed = train(run), train(replace(run, engine=EngineSettings(activation_checkpointing=True)))
    assert recomputed.losses == kept.losses and recomputed.norms == kept.norms
    same(recomputed.state, kept.state)


def test_recomputing_keeps_fewer_activations() -> None:
    def kept(module: TrainingModule) -> int:
        sizes: list[int] = []

        def note(values: Tensor) -> Tensor:
            sizes.append(values.numel())
            return values

        with torch.autograd.graph.saved_tensors_hooks(note, lambda values: values):
            module(tiny_batch(0), torch.Generator())
        return sum(sizes)

    module = tiny_module()
    before = kept(module)
    assert checkpoint_blocks(module) == ["network.blocks.0", "network.blocks.1"]
    assert kept(module) < before / 2


def test_dropout_is_drawn_again_alike() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5))

        def forward(self, values: Tensor) -> Tensor:
            return values + self.layers(values)

    def gradients(recompute: bool) -> list[Tensor]:
        torch.manual_seed(0)
        module = nn.Sequential(Block(), Block())
        if recompute:
            assert checkpoint_blocks(module) == ["0", "1"]
        torch.manual_seed(1)
        module(torch.ones(4, 8)).square().sum().backward()
        return [each.grad for each in module.parameters() if each.grad is not None]

    with torch.random.fork_rng(devices=[]):
        for first, second in zip(gradients(False), gradients(True), strict=True):
            assert torch.equal(first, second)


def test_a_network_may_name_its_blocks_itself() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(2, 2)
            self.second = nn.Linear(2, 2).requires_grad_(False)
            self.many = nn.ModuleList(nn.Sequential(nn.Linear(2, 2)) for _ in range(3))

        def checkpointed_blocks(self) -> list[nn.Module]:
            return [self.first, self.second]

    assert list(blocks_of(nn.ModuleDict({"network": Named()}))) == ["network.first"], "and frozen ones are left out"


def test_batches_are_moved_whole() -> None:
    @dataclass(frozen=True)
    class Targets:
        boxes: Tensor
        name: str

    meta = torch.device("meta")
    moved = to_device({"a": [torch.ones(2), 3], "b": (Targets(torch.ones(1, 4), "x"),)}, meta)
    assert moved["a"][0].device == moved["b"][0].boxes.device == meta
    assert moved["a"][1] == 3 and moved["b"][0].name == "x"


def test_only_batch_norms_that_train_are_synchronised() -> None:
    module = tiny_module()
    names = list(module.state_dict())
    sync_batch_norms(module)
    kinds = {name: type(each).__name__ for name, each in module.named_modules() if "Norm" in type(each).__name__}
    assert kinds == {
        "network.frozen.1": "BatchNorm2d",
        "network.blocks.0.norm": "SyncBatchNorm",
        "network.blocks.1.norm": "SyncBatchNorm",
    }
    assert list(module.state_dict()) == names
