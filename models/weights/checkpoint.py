"""Tensors by name, with what is known about where they come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint(Mapping[str, "Tensor"]):
    """What a file holds. It is itself a mapping from name to tensor, so every `load_state_dict` takes it.

    Args:
        tensors: by name, on the CPU, without wrappers and common prefixes.
        metadata: what the header of our own safetensors files says: `variant` (a name), `compatible_offsets` (a bool)
            and more; empty for files of others.
        where: the path, or the URL without credentials, for messages.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)
    where: str = "the weights"

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)
