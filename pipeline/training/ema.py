"""Exponential moving average of the trained weights: what is evaluated and saved in their place, if asked for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from trackmill.schemas.config import Settings
from trackmill.schemas.errors import InputError


class EmaSettings(Settings):
    """Section `ema`; released: none."""

    decay: float = Field(0.0, ge=0, lt=1, description="Share of the average that a step keeps, e.g. 0.9998; 0: none.")
    warmup: bool = Field(True, description="Begin with less: the share after n steps is at most (1 + n) / (10 + n).")


class Ema:
    """The average of a module's trained parameters, float32 on their device; buffers are taken as they are.

    `average = d * average + (1 - d) * weight`, d = decay or, with warm-up, min(decay, (1 + n) / (10 + n)) after n
    updates, as TensorFlow's ExponentialMovingAverage with `num_updates`.

    Args:
        module: as the engine holds it; starts the average at its present weights.
        settings: see there.

    Raises:
        ValueError: the parameters are spread over ranks (ZeRO-3), so no rank has them whole.
    """

    def __init__(self, module: nn.Module, settings: EmaSettings) -> None:
        trained = {name: each for name, each in module.named_parameters() if each.requires_grad}
        if any(hasattr(each, "ds_id") for each in trained.values()):
            raise InputError("ema.decay does not go with engine.zero_stage = 3, where no rank has whole weights: set 2")
        self.settings = settings
        self._trained = trained
        self._average = {name: each.detach().float().clone() for name, each in trained.items()}

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Take in the weights after `steps` optimiser steps, counted from 1."""
        decay = self.settings.decay
        if self.settings.warmup:
            decay = min(decay, (1 + steps) / (10 + steps))
        averages = list(self._average.values())
        weights = [self._trained[name].detach().to(average) for name, average in self._average.items()]
        torch._foreach_lerp_(averages, weights, 1 - decay)

    def state(self) -> dict[str, Tensor]:
        """The average by the parameters' names in the module, float32 on the CPU; copies."""
        return {name: each.to("cpu", copy=True) for name, each in self._average.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave.

        Raises:
            ValueError: other names or shapes; says which.
        """
        expected = {name: each.shape for name, each in self._average.items()}
        given = {name: each.shape for name, each in state.items()}
        if expected != given:
            wrong = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
            raise ValueError(f"the average does not fit the module, {len(wrong)} tensors, the first is {wrong[0]}")
        for name, average in self._average.items():
            average.copy_(state[name])
