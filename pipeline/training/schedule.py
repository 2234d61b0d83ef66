"""The learning rate as a pure function of the step: linear warm-up, then steps, a cosine or a constant."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from trackmill.schemas.config import Settings, build


class ScheduleSettings(Settings):
    """Section `schedule`. The defaults are the released schedule: 12 epochs of 500 000 SA-1B pictures, 8 per 64 batch.

    `--max-steps` cuts a run short and leaves all of this as it is.
    """

    steps: int = Field(37_500, ge=0, description="Optimiser steps of the whole training. Released: 12 epochs of 3125.")
    epochs: float = Field(
        0.0, ge=0, description="Length in passes over the data set instead; `steps` is 0 or left out then."
    )
    kind: Literal["step", "cosine", "constant"] = Field("step", description="How the rate falls after the warm-up.")
    warmup_steps: int = Field(1000, ge=0, description="Steps of the linear warm-up; released: 1000. 0: none.")
    warmup_factor: float = Field(0.001, gt=0, le=1, description="Share of the peak at the first step of the warm-up.")
    milestones: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (25_000, 34_375), description="Kind step: the rate is multiplied by `gamma` from each of these steps on."
    )
    milestone_epochs: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        (), description="Kind step: the milestones in passes over the data set; `milestones` is empty or left out then."
    )
    gamma: float = Field(0.1, gt=0, le=1, description="Kind step: factor at each milestone.")
    final_factor: float = Field(0.0, ge=0, le=1, description="Kind cosine: share of the peak at the last step.")

    @model_validator(mode="before")
    @classmethod
    def _without_defaults(cls, values: Any) -> Any:
        """The defaults in steps are none where the schedule is given in epochs."""
        if isinstance(values, dict) and values.get("epochs"):
            values = {"steps": 0, "milestones": (), **values}
        elif isinstance(values, dict) and values.get("milestone_epochs"):
            values = {"milestones": (), **values}
        return values

    @model_validator(mode="after")
    def _check(self) -> ScheduleSettings:
        if self.steps and self.epochs:
            raise ValueError(
                f"steps = {self.steps} and epochs = {self.epochs:g} are two lengths of one training: set one to 0"
            )
        if not self.steps and not self.epochs:
            raise ValueError("steps = 0 and epochs = 0: set one of them above 0")
        if self.milestones and self.milestone_epochs:
            raise ValueError(
                f"milestones = {list(self.milestones)} and milestone_epochs = {list(self.milestone_epochs)}: set one "
                "to []"
            )
        if list(self.milestone_epochs) != sorted(set(self.milestone_epochs)):
            raise ValueError(f"milestone_epochs must rise: {list(self.milestone_epochs)}")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise: {list(self.milestones)}")
        if self.kind == "cosine" and self.steps and self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps = {self.warmup_steps} leaves nothing of the {self.steps} steps for the cosine"
            )
        return self


def in_steps(settings: ScheduleSettings, samples: int, batch_size: int) -> ScheduleSettings:
    """The same schedule with all of its lengths in steps.

    Args:
        settings: see there.
        samples: of the data set.
        batch_size: samples of an optimiser step.

    Raises:
        ConfigError: the steps do not go together, such as a warm-up that is longer than the whole.
    """
    if not settings.epochs and not settings.milestone_epochs:
        return settings
    values = settings.model_dump() | {"epochs": 0.0, "milestone_epochs": ()}
    if settings.epochs:
        values["steps"] = max(1, round(settings.epochs * samples / batch_size))
    if settings.milestone_epochs:
        milestones = (round(epoch * samples / batch_size) for epoch in settings.milestone_epochs)
        values["milestones"] = tuple(dict.fromkeys(milestones))
    return build(ScheduleSettings, values, "schedule")


def learning_rate(step: int, settings: ScheduleSettings, peak: float) -> float:
    """The rate of one optimiser step.

    With w the warm-up steps, f its factor and S all steps, for step t = 0, 1, ...:

        warm(t) = f + (1 - f) * t / (w - 1) for t < w, else 1
        step:     peak * warm(t) * gamma ^ (number of milestones <= t)
        cosine:   peak * warm(t) for t < w, then
                  peak * (g + (1 - g) * (1 + cos(pi * (t - w) / (S - 1 - w))) / 2), g the final factor
        constant: peak * warm(t)

    Warm-up and milestones act together, as the two schedulers of the released configuration do (mmengine's `LinearLR`
    with end = w reaches the peak at step w - 1; `MultiStepLR`).

    Args:
        step: steps done before this one, from 0. From the last step on the rate stays as it is.
        settings: in steps, see `in_steps`.
        peak: the rate that the factors multiply (`optim.lr`).

    Raises:
        ValueError: a negative step.
    """
    if step < 0:
        raise ValueError(f"step = {step}: steps count from 0")
    step = min(step, settings.steps - 1)
    factor = 1.0
    if step < settings.warmup_steps - 1:
        factor = settings.warmup_factor + (1 - settings.warmup_factor) * step / (settings.warmup_steps - 1)
    if settings.kind == "step":
        factor *= settings.gamma ** sum(milestone <= step for milestone in settings.milestones)
    elif settings.kind == "cosine" and step >= settings.warmup_steps:
        length = settings.steps - 1 - settings.warmup_steps
        done = (step - settings.warmup_steps) / length if length else 1.0
        factor = settings.final_factor + (1 - settings.final_factor) * (1 + math.cos(math.pi * done)) / 2
    return peak * factor
