"""How tensors are spread over ranks: plain PyTorch or DDP, and DeepSpeed's ZeRO."""

from __future__ import annotations

import torch

from trackmill.pipeline.tasks.base import TrainingModule
from trackmill.pipeline.training.engines.base import Engine, EngineSettings, OptimSettings


def make_engine(
    module: TrainingModule, settings: EngineSettings, optim: OptimSettings, device: torch.device, rank: int, world: int
) -> Engine:
    """The engine that the settings ask for. With `world` > 1 the process group must be there already.

    Numerics (TF32, deterministic algorithms) are set for the whole process.

    Raises:
        ValueError: the settings cannot work here (float16 without a GPU, nothing to train).
        ImportError: deepspeed is missing; says what to type.
    """
    if settings.name == "deepspeed":
        from trackmill.pipeline.training.engines.deepspeed_engine import DeepSpeedEngine

        return DeepSpeedEngine(module, settings, optim, device, rank, world)
    from trackmill.pipeline.training.engines.torch_engine import TorchEngine

    return TorchEngine(module, settings, optim, device, rank, world)
