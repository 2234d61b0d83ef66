"""A task of a few hundred parameters that has nothing to do with MASA: the loop must not notice the difference.

It guesses the mean colour of a picture from a few of its pixels. Everything is in it that could break a resumed run:
batch norm, dropout, noise from the step's generator, augmentation from the place's, a frozen part. It is no part of the
project: recipes name it as they would name anybody's (`TINY`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from trackmill.pipeline.loader.contract import StoredSample
from trackmill.pipeline.tasks.base import Evaluation, Task, TrainingModule
from trackmill.schemas.config import Settings

TINY = "tests.training.tiny_task:TinyTask"
SIDE = 8


class TinyModelSettings(Settings):
    """Section `model`."""

    width: int = Field(6, gt=0)
    dropout: float = Field(0.2, ge=0, lt=1)
    frozen_seed: int = Field(11, ge=0, description="Stands for the file of frozen weights.")


class TinyEvaluationSettings(Settings):
    """Section `evaluation`."""

    every: int = Field(0, ge=0)


class TinyNetwork(nn.Module):
    """(B, 3, SIDE, SIDE) to (B, 3)."""

    def __init__(self, settings: TinyModelSettings, seed: int, read_weights: bool) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(settings.frozen_seed if read_weights else 0)  # stands for reading the file
            self.stem = nn.Conv2d(3, settings.width, 3)
            torch.manual_seed(seed)
            self.norm = nn.BatchNorm2d(settings.width)
            self.drop = nn.Dropout(settings.dropout)
            self.head = nn.Linear(settings.width * (SIDE - 2) ** 2, 3)
        self.stem.requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """The guess."""
        return self.head(self.drop(self.norm(self.stem(pixels)).relu()).flatten(1))


class TinyModule(TrainingModule):
    """The network with its loss."""

    def __init__(self, network: TinyNetwork, poison: Callable[[], bool]) -> None:
        super().__init__()
        self.network = network
        self._poison = poison

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """`total` = `fit` + `size`."""
        noise = torch.randn(batch["pixels"].shape, generator=generator)
        guess = self.network(batch["pixels"] + 0.1 * noise)
        fit = (guess - batch["mean"]).square().mean()
        size = 1e-3 * guess.abs().mean()
        total = (fit + size) * (float("nan") if self._poison() else 1.0)
        return {"total": total, "fit": fit.detach(), "size": size.detach(), "keys": batch["keys"].double().mean()}


class TinyExample:
    """A few pixels of the first frame, their place and brightness by chance."""

    def __call__(
        self, sample: StoredSample, rng: np.random.Generator, another: Callable[[], StoredSample]
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Make it."""
        image = sample.image(0).astype(np.float32) / 255
        top, left = rng.integers(image.shape[0] - SIDE), rng.integers(image.shape[1] - SIDE)
        crop = image[top : top + SIDE, left : left + SIDE] * np.float32(rng.uniform(0.8, 1.2))
        return crop.transpose(2, 0, 1).copy(), image.mean((0, 1)), sum(sample.key.encode()) % 1000


class TinyTask(Task):
    """See `trackmill.pipeline.tasks.base.Task`."""

    name = "tiny"
    sections: ClassVar[Mapping[str, type[Settings]]] = {
        "model": TinyModelSettings,
        "evaluation": TinyEvaluationSettings,
    }
    no_effect = ("evaluation",)
    poison: Callable[[], bool] = staticmethod(lambda: False)
    """Called in each forward pass; where it is true, the loss is no number."""

    def __init__(self, model: TinyModelSettings, evaluation: TinyEvaluationSettings) -> None:
        self._model, self._evaluation = model, evaluation

    def build(self, seed: int, read_weights: bool = True) -> TinyModule:
        """Likewise."""
        return TinyModule(TinyNetwork(self._model, seed, read_weights), self.poison)

    def make_example(self) -> TinyExample:
        """Likewise."""
        return TinyExample()

    def collate(self, examples: Sequence[Any]) -> dict[str, Tensor]:
        """Likewise."""
        pixels, means, keys = zip(*examples)
        return {
            "pixels": torch.from_numpy(np.stack(pixels)),
            "mean": torch.from_numpy(np.stack(means)),
            "keys": torch.tensor(keys),
        }

    def metadata(self) -> dict[str, str]:
        """Likewise."""
        return {"trackmill": json.dumps({"variant": "tiny"})}

    def evaluation(self) -> Evaluation | None:
        """The mean of all weights, and a look at the random numbers, which must not disturb the run."""

        def measure(network: nn.Module, device: torch.device) -> Mapping[str, float]:
            assert not network.training
            torch.rand(7)
            return {"weights": float(sum(each.double().sum() for each in network.parameters()))}

        every = self._evaluation.every
        return Evaluation(every=every, measure=measure) if every else None
