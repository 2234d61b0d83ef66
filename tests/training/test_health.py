"""When steps that teach nothing are told of, and when they end a run."""

from __future__ import annotations

import math
from typing import Any

import pytest

from trackmill.pipeline.training.health import FEWEST, WINDOW, Health, NonFinite, NothingLearnt


def row(step: int, loss: float = 1.0, grad_norm: float = 1.0, **more: float) -> dict[str, float]:
    return {"step": float(step), "loss": loss, "grad_norm": grad_norm, **more}


def watch(rows: list[dict[str, float]], health: Health) -> list[str]:
    return [told for each in rows if (told := health.look(each))]


def keys(step: int, ranks: Any) -> list[str]:
    return [f"sample-{step}-{rank}" for rank in ranks or range(40)]


def test_a_step_without_numbers_is_counted_and_its_samples_are_named() -> None:
    health = Health(5, 0.5, samples=keys)
    told = health.look(row(7, loss=math.nan, grad_norm=math.nan, fit=math.inf), bad_ranks=[1])
    assert told.startswith("step 7: no numbers came out (loss nan, grad_norm nan, fit inf), so the step was left out")
    assert "among sample-7-1; 1 steps were left out so far" in told
    assert not health.healthy
    assert health.look(row(8)) == "" and health.healthy
    told = health.look(row(9, grad_norm=math.inf))
    assert "sample-9-31 and 8 more" in told and "2 steps were left out" in told


def test_gradients_that_overflow_again_and_again_end_the_run() -> None:
    with pytest.raises(NonFinite, match=r"step 13: .*grad_norm inf.*3 steps in a row"):
        watch([row(step, grad_norm=1.0 if step < 11 else math.inf) for step in range(1, 40)], Health(3, 0.5))


def test_every_second_step_left_out_is_too_many() -> None:
    rows = [row(step, grad_norm=math.nan if step % 3 else 1.0) for step in range(1, 40)]
    with pytest.raises(NonFinite, match=rf"of the last {FEWEST} steps, more than max_skipped = 0.5 allows"):
        watch(rows, Health(5, 0.5))
    assert len(watch(rows, Health(5, 1.0))) == 26


def test_float16_may_look_for_its_loss_scale_but_not_for_ever() -> None:
    rows = [row(step, grad_norm=math.inf, loss_scale=max(1.0, 2.0 ** (17 - step))) for step in range(1, 40)]
    health = Health(4, 0.5)
    assert watch(rows[:16], health) == [] and health.healthy and health.skipped == 16
    with pytest.raises(NonFinite, match=r"step 20: .*4 steps in a row"):
        watch(rows[16:], health)


def test_steps_left_out_before_a_resume_still_count_in_what_is_said() -> None:
    health = Health(5, 0.5, skipped=3)
    health.look(row(9, grad_norm=math.nan))
    health.look(row(10))
    assert health.at_the_end(whole=False) == "4 steps were left out, since they gave no numbers"


def test_a_run_without_positives_is_no_success() -> None:
    rows = [row(step, positives=0.0) for step in range(1, 11)]
    health = Health(5, 0.5, needed=("positives",))
    watch(rows, health)
    with pytest.raises(NothingLearnt, match="positives was 0 in all of the last 10 steps"):
        health.at_the_end(whole=True)
    assert "positives was 0" in health.at_the_end(whole=False), "the rest of a run may be unlucky: a note"
    with pytest.raises(NothingLearnt, match=f"of the last {WINDOW} steps"):
        watch([row(step, positives=0.0) for step in range(WINDOW)], Health(5, 0.5, needed=("positives",)))
    one = Health(5, 0.5, needed=("positives",))
    watch([*rows, row(11, positives=0.25)], one)
    assert one.at_the_end(whole=True) == ""


def test_gradients_of_exactly_zero_are_no_success() -> None:
    health = Health(5, 0.5)
    watch([row(step, grad_norm=0.0) for step in range(5)], health)
    with pytest.raises(NothingLearnt, match="all gradients were exactly zero"):
        health.at_the_end(whole=True)


def test_statistics_that_overflowed_are_told() -> None:
    told = Health(5, 0.5).look(row(3, kept_statistics=1.0))
    assert "step 3: a batch overflowed the statistics of batch norm, which were left as they were" in told
