"""The plain engine: one process, or DistributedDataParallel over several."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from trackmill.pipeline.tasks.base import TrainingModule
from trackmill.pipeline.training.engines.activation_checkpointing import checkpoint_blocks
from trackmill.pipeline.training.engines.base import EngineSettings, EngineState, OptimSettings
from trackmill.pipeline.training.engines.ddp_module import EngineModule, sync_batch_norms, to_device
from trackmill.pipeline.training.engines.optimiser import (
    check_state,
    clip_gradients,
    kept_tensors,
    make_optimizer,
    moment_kinds,
    read_moments,
    set_rate,
    trained_parameters,
    write_moments,
)
from trackmill.pipeline.training.engines.precision import LossScale, prepare_numerics
from trackmill.pipeline.training.engines.statistics import RunningStatistics


class TorchEngine:
    """See `trackmill.pipeline.training.engines.base.Engine` and `make_engine`."""

    def __init__(
        self,
        module: TrainingModule,
        settings: EngineSettings,
        optim: OptimSettings,
        device: torch.device,
        rank: int,
        world: int,
    ) -> None:
        prepare_numerics(settings, device)
        if settings.sync_batch_norm and device.type == "cuda" and world > 1:
            sync_batch_norms(module)
        if settings.activation_checkpointing:
            checkpoint_blocks(module)
        self.module = module.to(device)
        self.device = device
        self._optim = optim
        self._rank = rank
        self._trained = trained_parameters(module)
        self._optimizer = make_optimizer(self._trained, optim)
        self._scale = LossScale(settings)
        self._statistics = RunningStatistics(module)
        self.kept_statistics = 0
        self._steps = 0
        self._parts = 0
        self._wrapped = EngineModule(module, settings, device, "after forward")
        self._parallel: DistributedDataParallel | None = None
        if world > 1:
            # Statistics of batch norm differ between ranks until the state is asked for: training does not read them.
            self._parallel = DistributedDataParallel(
                self._wrapped, broadcast_buffers=False, gradient_as_bucket_view=True
            )

    def forward(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Engine.forward`."""
        if not self._parts:
            self._statistics.keep()
        batch = to_device(batch, self.device)
        if self._parallel is None:
            losses: dict[str, Tensor] = self._wrapped(batch, generator)
            return losses
        # DDP decides here, not in the backward pass, whether gradients will be averaged.
        averaging = self._parts + 1 == self._optim.accumulate
        with nullcontext() if averaging else self._parallel.no_sync():
            losses = self._parallel(batch, generator)
        return losses

    def backward(self, loss: Tensor, last: bool) -> None:
        """See `Engine.backward`."""
        self._parts += 1
        assert last == (self._parts == self._optim.accumulate), f"part {self._parts} of {self._optim.accumulate}"
        (loss * (self._scale.value / self._optim.accumulate)).backward()

    def step(self, lr: float) -> float:
        """See `Engine.step`."""
        assert self._parts == self._optim.accumulate, f"a step after {self._parts} of {self._optim.accumulate} parts"
        self._parts = 0
        norm = clip_gradients(self._trained, self._optim.clip_norm, self._scale.value)
        sound = self._statistics.finite()
        if self._scale.update(norm):
            set_rate(self._optimizer, lr)
            self._optimizer.step()
            self._steps += 1
            self.kept_statistics += not sound
        else:
            sound = False
        if not sound:
            self._statistics.restore()
        self._optimizer.zero_grad(set_to_none=True)
        return norm

    @property
    def loss_scale(self) -> float:
        """See `Engine`."""
        return self._scale.value

    def state(self) -> EngineState | None:
        """See `Engine.state`."""
        if self._rank:
            return None
        return EngineState(
            parameters={name: each.detach().to("cpu", copy=True) for name, each in kept_tensors(self.module).items()},
            moments=read_moments(self._optimizer, self._trained, self._optim),
            numbers={"steps": self._steps, **self._scale.numbers()},
        )

    @torch.no_grad()
    def load(self, state: EngineState) -> None:
        """See `Engine.load`."""
        kept = kept_tensors(self.module)
        moments = {
            f"{name}/{kind}": each.shape for name, each in self._trained.items() for kind in moment_kinds(self._optim)
        }
        check_state(state, {name: each.shape for name, each in kept.items()}, moments)
        for name, each in kept.items():
            each.copy_(state.parameters[name])
        write_moments(self._optimizer, self._trained, self._optim, state)
        self._steps = state.numbers["steps"]
        self._scale.load(state.numbers)

    def close(self) -> None:
        """See `Engine.close`."""
        self._parallel = None
        self._optimizer.zero_grad(set_to_none=True)
        self._optimizer.state.clear()
