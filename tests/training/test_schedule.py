"""The learning rate: the released schedule by hand, other kinds, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from trackmill.pipeline.training.schedule import ScheduleSettings, in_steps, learning_rate
from trackmill.schemas.config import ConfigError, build

RELEASED = ScheduleSettings()


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.08 * 0.001),  # the first step of the warm-up
        (1, 0.08 * (0.001 + 0.999 / 999)),  # 0.08 * 0.002
        (500, 0.08 * (0.001 + 0.999 * 500 / 999)),  # 0.08 * 0.501
        (998, 0.08 * 0.999),  # one before the peak
        (999, 0.08),  # the peak is reached with the thousandth step, not after it
        (24_999, 0.08),
        (25_000, 0.008),  # epoch 8
        (34_374, 0.008),
        (34_375, 0.0008),  # epoch 11
        (37_499, 0.0008),  # the last step
        (10**9, 0.0008),  # beyond: the last value
    ],
)
def test_released_schedule(step: int, rate: float) -> None:
    assert learning_rate(step, RELEASED, 0.08) == pytest.approx(rate, rel=1e-12)


def test_warmup_is_the_recursion_of_the_released_scheduler() -> None:
    """mmengine multiplies the rate before by 1 + (end - start) / (total * start + (step - 1) * (end - start))."""
    rate, total, start = 0.08 * 0.001, 999, 0.001
    for step in range(1, 1000):
        rate *= 1 + (1 - start) / (total * start + (step - 1) * (1 - start))
        assert learning_rate(step, RELEASED, 0.08) == pytest.approx(rate, rel=1e-9)


def test_milestones_within_the_warmup_act_as_well() -> None:
    settings = ScheduleSettings(steps=20, warmup_steps=11, warmup_factor=0.1, milestones=(5,))
    assert learning_rate(4, settings, 1) == pytest.approx(0.1 + 0.9 * 0.4)
    assert learning_rate(5, settings, 1) == pytest.approx((0.1 + 0.9 * 0.5) * 0.1)


def test_cosine_goes_from_the_peak_to_the_final_factor() -> None:
    settings = ScheduleSettings(kind="cosine", steps=111, warmup_steps=10, final_factor=0.2)
    assert learning_rate(9, settings, 1) == learning_rate(10, settings, 1) == 1
    assert learning_rate(60, settings, 1) == pytest.approx(0.6)  # half way
    assert learning_rate(110, settings, 1) == learning_rate(500, settings, 1) == pytest.approx(0.2)


def test_constant_and_no_warmup() -> None:
    settings = ScheduleSettings(kind="constant", warmup_steps=0, steps=5)
    assert {learning_rate(step, settings, 0.3) for step in range(9)} == {0.3}
    assert learning_rate(0, ScheduleSettings(warmup_steps=1), 0.3) == 0.3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"milestones": (5, 3)}, "milestones must rise"),
        ({"kind": "cosine", "steps": 100}, "leaves nothing"),
        ({"warmup_factor": 0}, "greater than 0"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ScheduleSettings(**values)  # type: ignore[arg-type]


def test_negative_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="count from 0"):
        learning_rate(-1, RELEASED, 1)


def test_epochs_become_steps_of_the_data_set() -> None:
    settings = ScheduleSettings(epochs=5, milestone_epochs=(2,), warmup_steps=0)
    known = in_steps(settings, samples=1000, batch_size=16)
    assert (known.steps, known.milestones) == (312, (125,)), "312.5 and 125 batches"
    assert in_steps(known, samples=7, batch_size=1) == known, "what is in steps stays"
    assert learning_rate(124, known, 2e-4) == 2e-4
    assert learning_rate(125, known, 2e-4) == pytest.approx(2e-5)
    only = in_steps(ScheduleSettings(steps=40, milestone_epochs=(0.5, 1.5)), samples=100, batch_size=8)
    assert (only.steps, only.milestones) == (40, (6, 19))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 100, "epochs": 5}, "steps = 100 and epochs = 5 are two lengths"),
        ({"steps": 0}, "steps = 0 and epochs = 0"),
        ({"epochs": 5, "milestones": [3], "milestone_epochs": [2]}, "milestones = .* set one"),
        ({"epochs": 5, "milestone_epochs": [3, 2]}, "milestone_epochs must rise"),
    ],
)
def test_two_lengths_of_one_training_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(ScheduleSettings, values, "schedule")


def test_a_warm_up_that_is_longer_than_the_epochs_is_named_once_they_are_known() -> None:
    settings = ScheduleSettings(epochs=1, kind="cosine", warmup_steps=20)
    with pytest.raises(ConfigError, match="warmup_steps = 20 leaves nothing of the 10 steps"):
        in_steps(settings, samples=80, batch_size=8)
