"""MASA's network with its losses, and which parts of it stay as they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trackmill.models.masa.losses import LossSettings, masa_losses
from trackmill.models.masa.model import Masa
from trackmill.models.masa.variants import Variant
from trackmill.pipeline.tasks.base import TrainingModule
from trackmill.pipeline.tasks.masa.batch import PairBatch
from trackmill.schemas.config import ConfigError
from trackmill.schemas.names import nearest


class MasaTraining(TrainingModule):
    """`Masa` with its losses.

    Args:
        network: the model.
        frozen: names of its parts that are not trained: no gradients, always in evaluation mode.
        loss: which losses.
    """

    network: Masa

    def __init__(self, network: Masa, frozen: Sequence[str], loss: LossSettings) -> None:
        super().__init__()
        self.network, self.frozen, self.loss = network, tuple(frozen), loss
        for name, parameter in network.named_parameters():
            if any(_within(name, part) for part in frozen):
                parameter.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> MasaTraining:
        """As in any module, but for what is frozen; batch norms follow `Masa.train`."""
        super().train(mode)
        for name, module in self.network.named_modules():
            if name in self.frozen:
                module.eval()
        return self

    def forward(self, batch: PairBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """See `trackmill.models.masa.losses.masa_losses`; `total` is learnt from, the rest is for the curves."""
        return masa_losses(
            self.network,
            batch.key.images.float(),
            batch.reference.images.float(),
            batch.key.targets(batch.origins),
            batch.reference.targets(batch.origins),
            generator,
            settings=self.loss,
        )


def frozen_parts(variant: Variant, freeze: Sequence[str], loss: LossSettings) -> tuple[str, ...]:
    """Parts without gradients: those that the recipe names, and those that no loss reaches.

    Raises:
        ConfigError: the network has no such part; names the nearest.
    """
    with torch.device("meta"):  # names alone
        network = Masa(variant)
    names = [name for name, _ in network.named_parameters()]
    modules = [name for name, _ in network.named_modules() if name]
    for part in freeze:
        if not any(_within(name, part) for name in names):
            known = ", ".join(each for each in modules if "." not in each)
            advice = nearest(part, modules) or f"known: {known}"
            raise ConfigError(f"model.freeze: {variant.name} has no part {part!r}; {advice}")
    unreached = []
    if not loss.detection:
        unreached = ["rpn_head", "roi_head"] + (["masa_adapter"] if variant.track_head == "bands" else [])
    return tuple(dict.fromkeys([*freeze, *unreached]))


def _within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")
