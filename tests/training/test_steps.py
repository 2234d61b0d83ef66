"""What a task's module returns is held to its contract before anything is learnt from it."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from trackmill.pipeline.training.engines.base import Engine
from trackmill.pipeline.training.steps import BadLosses, run_step

W = torch.ones((), requires_grad=True)


class FakeEngine:
    """Returns the same losses for every batch, and counts steps."""

    def __init__(self, losses: Any) -> None:
        self.losses, self.steps = losses, 0

    def forward(self, batch: Any, generator: torch.Generator) -> Any:
        return self.losses

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        loss.backward(retain_graph=True)

    def step(self, lr: float) -> float:
        self.steps += 1
        return 1.0


def take(losses: Any) -> FakeEngine:
    engine = FakeEngine(losses)
    run_step(
        cast(Engine, engine), iter([0]), seed=0, step=0, rank=0, accumulate=1, lr=0.1, stage=lambda name, step: None
    )
    return engine


def test_a_total_that_can_be_learnt_from() -> None:
    assert take({"total": W * 2, "part": torch.zeros(1)}).steps == 1


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (None, "returned NoneType"),
        ({}, "returned nothing"),
        ({"loss": W * 2}, "returned loss; it should return a dict with `total`"),
        ({"total": torch.ones(())}, "a total without gradients"),
        ({"total": W * torch.ones(3)}, r"returned total as \(3,\)"),
        ({"total": W * 2, "part": 1.0}, "returned part as float"),
    ],
)
def test_what_cannot_is_refused_before_the_first_step(losses: Any, message: str) -> None:
    with pytest.raises(BadLosses, match=message):
        take(losses)
