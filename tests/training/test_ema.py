"""The average of weights: its formula, its state, and that evaluation with it leaves no trace."""

from __future__ import annotations

import pytest
import torch

from tests.training.tiny_module import tiny_module
from trackmill.pipeline.training.ema import Ema, EmaSettings


def test_the_average_follows_its_formula_and_the_warmup() -> None:
    module = tiny_module()
    weight = module.network.head.weight
    expected = weight.detach().clone()
    ema = Ema(module, EmaSettings(decay=0.5))
    for steps, decay in ((1, 2 / 11), (2, 3 / 12), (3, 4 / 13), (100, 0.5)):  # min(0.5, (1 + n) / (10 + n))
        with torch.no_grad():
            weight.add_(1)
        ema.update(steps)
        expected = decay * expected + (1 - decay) * weight.detach()
        torch.testing.assert_close(ema.state()["network.head.weight"], expected)


def test_without_warmup_the_decay_holds_from_the_start() -> None:
    module = tiny_module()
    before = module.network.head.bias.detach().clone()
    ema = Ema(module, EmaSettings(decay=0.75, warmup=False))
    with torch.no_grad():
        module.network.head.bias.add_(4)
    ema.update(1)
    torch.testing.assert_close(ema.state()["network.head.bias"], before + 1)


def test_frozen_parameters_and_buffers_are_not_averaged() -> None:
    names = Ema(tiny_module(), EmaSettings(decay=0.9)).state()
    assert not any(".frozen." in name or "running_mean" in name for name in names)
    assert "network.blocks.0.conv.weight" in names


def test_state_goes_to_another_run_and_only_to_a_like_one() -> None:
    module = tiny_module()
    first, second = Ema(module, EmaSettings(decay=0.9)), Ema(tiny_module(seed=1), EmaSettings(decay=0.9))
    second.load(first.state())
    assert all(torch.equal(each, second.state()[name]) for name, each in first.state().items())
    state = first.state()
    state["network.head.bias"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"the first is network\.head\.bias"):
        second.load(state)
