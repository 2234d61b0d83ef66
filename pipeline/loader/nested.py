"""Batches are nested dicts, lists, tuples and dataclasses of tensors and other values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor


def map_tensors(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nested dicts, lists, tuples and dataclasses with changed tensors; other values as they are."""
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, dict):
        return {key: map_tensors(value, change) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_tensors(value, change) for value in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(map_tensors(value, change) for value in batch)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        own = {each.name: getattr(batch, each.name) for each in dataclasses.fields(batch) if each.init}
        return dataclasses.replace(batch, **{name: map_tensors(value, change) for name, value in own.items()})
    return batch
