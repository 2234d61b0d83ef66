"""From a checkpoint to a detector."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trackmill.models.detic.model import Detic

if TYPE_CHECKING:
    import torch


def load_model(
    weights: str | os.PathLike[str] | Mapping[str, torch.Tensor],
    vocabulary: Any = None,
    variant: str | None = None,
    device: str | torch.device = "cpu",
    *,
    masks: bool = False,
    text_weights: str | os.PathLike[str] | None = None,
    dtype: str = "float32",
    compile: bool = False,
) -> Detic:
    """See `trackmill.models.detic.load`."""
    raise NotImplementedError
