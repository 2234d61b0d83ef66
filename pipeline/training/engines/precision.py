"""Precision of a training step: which numerics the process uses, autocast, and the loss scale of float16."""

from __future__ import annotations

import math
import os
from typing import Any

import torch

from trackmill.pipeline.training.engines.base import EngineSettings
from trackmill.schemas.errors import InputError

_LOW = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def prepare_numerics(settings: EngineSettings, device: torch.device) -> None:
    """Set what torch keeps for the whole process: TF32 and deterministic algorithms.

    Raises:
        ValueError: float16 on a CPU.
    """
    if settings.precision == "float16" and device.type != "cuda":
        raise InputError(f'engine.precision = "float16" needs a GPU, not {device.type}: set "bfloat16" or "float32"')
    # torch lets convolutions use TF32 unless told otherwise; float32 shall mean float32.
    tf32 = settings.precision == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = not settings.deterministic
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Deformable convolution on GPUs has no deterministic form: a warning, not an error.
    torch.use_deterministic_algorithms(settings.deterministic, warn_only=True)
    # It would also fill every fresh tensor, which costs time and hides nothing here.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def autocast(settings: EngineSettings, device: torch.device) -> torch.autocast:
    """The context of a forward pass: parameters stay float32, operations that bear it run in the lower precision."""
    dtype = _LOW.get(settings.precision)
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


class LossScale:
    """The factor that keeps float16's small gradients from vanishing; 1 and constant in other precisions.

    Halved when gradients overflow, doubled after 2000 steps without (the rule and numbers of `torch.amp.GradScaler`),
    but never below 1: gradients that overflow even so do not come from the scale.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self.dynamic = settings.precision == "float16"
        self.value = 65536.0 if self.dynamic else 1.0
        self.good_steps = 0

    def update(self, norm: float) -> bool:
        """Take note of the gradients' norm; whether the step may be made."""
        finite = math.isfinite(norm)
        if self.dynamic:
            self.good_steps = self.good_steps + 1 if finite else 0
            if not finite:
                self.value = max(1.0, self.value / 2)
            elif self.good_steps == 2000:
                self.value, self.good_steps = self.value * 2, 0
        return finite

    def numbers(self) -> dict[str, Any]:
        """What a checkpoint has to keep."""
        return {"loss_scale": self.value, "good_steps": self.good_steps} if self.dynamic else {}

    def load(self, numbers: dict[str, Any]) -> None:
        """Go on from `numbers`; from another precision there are none, and the scale starts anew."""
        if self.dynamic and "loss_scale" in numbers:
            self.value, self.good_steps = float(numbers["loss_scale"]), int(numbers["good_steps"])
