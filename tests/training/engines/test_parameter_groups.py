"""`optim.groups`: which parameters they take, and that every engine trains them as torch's own groups would be."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.engine_ranks import CPU, Outcome, Run, train, train_on_ranks, write_state
from tests.training.engines.test_engine import ADAMW, SGD, TORCH, same
from tests.training.tiny_module import tiny_batch, tiny_module
from trackmill.pipeline.training.engines import make_engine
from trackmill.pipeline.training.engines.base import EngineSettings, EngineState, GroupSettings, OptimSettings
from trackmill.pipeline.training.engines.optimiser import trained_parameters
from trackmill.pipeline.training.engines.parameter_groups import split_parameters
from trackmill.pipeline.training.parameters import count_groups
from trackmill.schemas.config import ConfigError, build

GROUPS = (
    GroupSettings(match="blocks.0.*", lr_factor=0.25, weight_decay=0.0),
    GroupSettings(match="blocks.*", lr_factor=0.5),
    GroupSettings(match="*.bias", lr_factor=2.0, weight_decay=0.05),
)
"""Of the tiny module, whose `head` and `seldom` are left over but for their biases."""

SGD_GROUPS = SGD.model_copy(update={"groups": GROUPS})
ADAMW_GROUPS = ADAMW.model_copy(update={"groups": GROUPS})

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="DeepSpeed compiles an operator when it is first used, and there is no g++"
)


def shares(optim: OptimSettings) -> list[tuple[str, float, float, list[str]]]:
    """(pattern, factor, decay, names) of each group of the tiny module."""
    groups = split_parameters(trained_parameters(tiny_module(batch_norm=False)), optim)
    return [(each.match, each.lr_factor, each.weight_decay, list(each.parameters)) for each in groups]


def test_the_first_group_that_matches_has_a_parameter() -> None:
    optim = OptimSettings(weight_decay=0.01, groups=GROUPS)
    parts = ("conv.weight", "conv.bias", "norm.weight", "norm.bias")
    assert shares(optim) == [
        ("blocks.0.*", 0.25, 0.0, [f"network.blocks.0.{part}" for part in parts]),
        ("blocks.*", 0.5, 0.01, [f"network.blocks.1.{part}" for part in parts]),
        ("*.bias", 2.0, 0.05, ["network.head.bias", "network.seldom.bias"]),
        ("", 1.0, 0.01, ["network.head.weight", "network.seldom.weight"]),
    ]


def test_vectors_are_decayed_in_no_group_where_norms_are_not() -> None:
    optim = OptimSettings(weight_decay=0.01, decay_norms=False, groups=GROUPS)
    found = shares(optim)
    assert [(match, factor, decay) for match, factor, decay, _ in found] == [
        ("blocks.0.*", 0.25, 0.0),
        ("blocks.0.*", 0.25, 0.0),
        ("blocks.*", 0.5, 0.01),
        ("blocks.*", 0.5, 0.0),
        ("*.bias", 2.0, 0.0),
        ("", 1.0, 0.01),
    ]
    trained = trained_parameters(tiny_module(batch_norm=False))
    assert {name for *_, decay, names in found if decay for name in names} <= {
        name for name, each in trained.items() if each.ndim > 1
    }
    assert sorted(name for *_, names in found for name in names) == sorted(trained), "each once"


def test_without_groups_the_optimiser_is_as_it_was() -> None:
    whole, apart = OptimSettings(weight_decay=0.01), OptimSettings(weight_decay=0.01, decay_norms=False)
    assert [(decay, len(names)) for _, _, decay, names in shares(whole)] == [(0.01, 12)]
    assert [(decay, len(names)) for _, _, decay, names in shares(apart)] == [(0.01, 4), (0.0, 8)]


def test_what_lies_beside_the_network_has_its_whole_name() -> None:
    module = tiny_module(batch_norm=False)
    module.book = nn.Linear(2, 2)
    (group, _) = split_parameters(
        trained_parameters(module), OptimSettings(groups=(GroupSettings(match="book.*", lr_factor=0.1),))
    )
    assert list(group.parameters) == ["book.weight", "book.bias"]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (("block.*",), r"match = 'block\.\*' matches no parameter; near are blocks\.\*"),
        (("blocks.0.cnov.weight",), r"matches no parameter; near are blocks\.0\.conv\.weight"),
        (("zzz",), r"matches no parameter; trained are blocks\.\*, head\.\*, seldom\.\*"),
        (("frozen.*",), r"match = 'frozen\.\*' matches only frozen parameters, which have no learning rate"),
        (("*", "head.*"), r"match = 'head\.\*' matches only parameters of earlier groups, and the first match wins"),
        (("Head.*",), r"matches no parameter; near are head\.\*"),
    ],
)
def test_a_pattern_for_nothing_is_a_mistake(patterns: tuple[str, ...], message: str) -> None:
    optim = OptimSettings(groups=tuple(GroupSettings(match=pattern) for pattern in patterns))
    with pytest.raises(ConfigError, match=r"^optim\.groups: .*" + message):
        count_groups(tiny_module(), optim)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"match": "a", "lr_faktor": 1}, r"unknown key .groups\.0\.lr_faktor.; did you mean .groups.0.lr_factor."),
        ({"match": ""}, "groups.0.match"),
        ({"match": "a", "lr_factor": 0}, "groups.0.lr_factor"),
        ({"match": "a", "weight_decay": -1}, "groups.0.weight_decay"),
        ({}, "groups.0.match"),
    ],
)
def test_a_group_is_checked_as_any_section(group: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(OptimSettings, {"groups": [group]}, "recipe")


def by_hand(optim: OptimSettings, steps: int, lr: float) -> tuple[list[float], Mapping[str, Tensor]]:
    """The tiny module trained with torch's own groups, written out; no clipping."""
    module = tiny_module(batch_norm=False)
    names = dict(module.named_parameters())
    groups = []
    for names_of, factor, decay in (
        ([name for name in names if ".blocks.0." in name], 0.25, 0.0),
        ([name for name in names if ".blocks.1." in name], 0.5, optim.weight_decay),
        (["network.head.bias", "network.seldom.bias"], 2.0, 0.05),
        (["network.head.weight", "network.seldom.weight"], 1.0, optim.weight_decay),
    ):
        groups.append({"params": [names[name] for name in names_of], "lr": lr * factor, "weight_decay": decay})
    if optim.name == "sgd":
        optimiser: torch.optim.Optimizer = torch.optim.SGD(groups, momentum=optim.momentum)
    else:
        optimiser = torch.optim.AdamW(groups, betas=optim.betas)
    losses = []
    for step in range(steps):
        total = module(tiny_batch(step), torch.Generator())["total"]
        total.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(total.detach()))
    return losses, module.state_dict()


@pytest.mark.parametrize("optim", [SGD_GROUPS, ADAMW_GROUPS], ids=["sgd", "adamw"])
def test_equals_groups_of_torch_step_by_step(optim: OptimSettings) -> None:
    optim = optim.model_copy(update={"decay_norms": True, "clip_norm": 0.0})
    run = train(Run(engine=TORCH, optim=optim, steps=6))
    losses, weights = by_hand(optim, 6, 0.05)
    assert run.losses == losses
    assert run.state is not None
    for name, values in run.state.parameters.items():
        assert torch.equal(values, weights[name]), name
    without = train(Run(engine=TORCH, optim=optim.model_copy(update={"groups": ()}), steps=6))
    assert without.losses != losses


def test_a_state_goes_on_in_other_groups_of_the_same_module(tmp_path: Path) -> None:
    """Moments lie in a checkpoint by the names of parameters, so groups are free to change with another recipe."""
    whole = train(Run(engine=TORCH, optim=ADAMW_GROUPS, steps=8))
    train(Run(engine=TORCH, optim=ADAMW_GROUPS, save=str(tmp_path)))
    rest = train(Run(engine=TORCH, optim=ADAMW_GROUPS, first=4, load=str(tmp_path)))
    assert rest.losses == whole.losses[4:]
    same(rest.state, whole.state)


def test_the_rate_of_each_group_follows_the_schedule() -> None:
    engine = make_engine(tiny_module(), TORCH, SGD_GROUPS, CPU, 0, 1)
    engine.backward(engine.forward(tiny_batch(0), torch.Generator())["total"], last=True)
    engine.step(0.1)
    rates = {group["lr"] for group in engine._optimizer.param_groups}  # type: ignore[attr-defined]
    assert rates == {0.1 * 0.25, 0.1 * 0.5, 0.1 * 2.0, 0.1}


def zero(stage: int) -> EngineSettings:
    return EngineSettings(name="deepspeed", zero_stage=stage)  # type: ignore[arg-type]


def on_ranks(stages: tuple[int, ...], world: int, folder: Path) -> dict[str, Outcome]:
    """SGD and AdamW with groups on some ranks: plain, in ZeRO's stages, and on from a state of the plain engine."""
    train(Run(engine=TORCH, optim=ADAMW_GROUPS, save=str(folder / "plain")))
    runs: dict[str, Run] = {"ddp": Run(engine=TORCH, optim=ADAMW_GROUPS, save=str(folder / "ddp"))}
    for stage in stages:
        runs[f"sgd-{stage}"] = Run(engine=zero(stage), optim=SGD_GROUPS, save=str(folder / f"sgd-{stage}"))
        runs[f"adamw-{stage}"] = Run(engine=zero(stage), optim=ADAMW_GROUPS, save=str(folder / f"adamw-{stage}"))
        runs[f"on-{stage}"] = replace(runs[f"adamw-{stage}"], first=4, load=str(folder / "plain"), save="")
    return dict(zip(runs, train_on_ranks(list(runs.values()), world, folder), strict=True))


def check_stage(outcomes: dict[str, Outcome], stage: int, folder: Path) -> None:
    """A stage trains as the plain engine, goes on from its state, and leaves one that it goes on from."""
    for name, optim in (("sgd", SGD_GROUPS), ("adamw", ADAMW_GROUPS)):
        plain, spread = train(Run(engine=TORCH, optim=optim)), outcomes[f"{name}-{stage}"]
        assert spread.losses == pytest.approx(plain.losses, rel=1e-4)
        same(spread.state, plain.state, rtol=1e-2, atol=1e-4)
    whole = train(Run(engine=TORCH, optim=ADAMW_GROUPS, steps=8))
    assert outcomes[f"on-{stage}"].losses == pytest.approx(whole.losses[4:], rel=1e-4)
    state = outcomes[f"adamw-{stage}"].state
    assert isinstance(state, EngineState)
    write_state(state, str(folder))
    rest = train(Run(engine=TORCH, optim=ADAMW_GROUPS, first=4, load=str(folder)))
    assert rest.losses == pytest.approx(whole.losses[4:], rel=1e-4)


@needs_compiler
@pytest.mark.timeout(1800)
@pytest.mark.slow  # processes that import DeepSpeed
def test_ddp_and_zero_on_two_ranks_equal_the_plain_engine(tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    outcomes = on_ranks((2,), 2, tmp_path)
    assert outcomes["ddp"].losses == pytest.approx(train(Run(engine=TORCH, optim=ADAMW_GROUPS)).losses, rel=1e-5)
    check_stage(outcomes, 2, tmp_path / "state")


@pytest.mark.slow
@needs_compiler
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("world", [1, 2])
def test_every_stage_of_zero_on_one_rank_and_on_two(world: int, tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    outcomes = on_ranks((0, 1, 2, 3), world, tmp_path)
    for stage in (0, 1, 2, 3):
        check_stage(outcomes, stage, tmp_path / f"state-{stage}")
