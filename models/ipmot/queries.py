"""Queries of the decoder, and those that carry a track from frame to frame.

`N` detect or track queries, `D` hidden width. All of one picture: there is no batch dimension where tracks take part.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

FALSE_POSITIVE = -1
"""Identity of a track query that stands for nobody; it is kept so that the network learns to let it go."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Queries:
    """What the decoder starts from.

    Args:
        content: (..., N, D), what is looked for.
        reference: (..., N, 4) logits of cx, cy, w, h (an anchor), or of the plain form (..., N, 2) logits of x, y.
        position: (..., N, D) learnt position, of the plain form alone; None: it is made of the anchor.
    """

    content: Tensor
    reference: Tensor
    position: Tensor | None = None

    def __len__(self) -> int:
        """N."""
        return self.content.shape[-2]

    def expanded(self, batch: int) -> Queries:
        """(N, ...) as (B, N, ...), without copies."""
        position = None if self.position is None else self.position.expand(batch, *self.position.shape)
        return Queries(
            content=self.content.expand(batch, *self.content.shape),
            reference=self.reference.expand(batch, *self.reference.shape),
            position=position,
        )

    def followed_by(self, other: Queries) -> Queries:
        """These queries, then the others; of one form and without or with the same batch dimension."""
        position = None
        if self.position is not None and other.position is not None:
            position = torch.cat([self.position, other.position], dim=-2)
        return Queries(
            content=torch.cat([self.content, other.content], dim=-2),
            reference=torch.cat([self.reference, other.reference], dim=-2),
            position=position,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class TrackQueries(Queries):
    """Queries of N_t tracks, as they enter a frame. `content` has gradients while training, `reference` has none.

    Args:
        ids: (N_t,) int64 on the CPU (nothing on the device depends on them): the identity, or `FALSE_POSITIVE`.
        scores: (N_t,) float in the frame before, without gradients.
        boxes: (N_t, 4) cx, cy, w, h in the frame before, without gradients.
        last_output: (N_t, D) of MeMOTR's update: output of the last frame that had a score above the threshold.
        long_memory: (N_t, D) of MeMOTR's update, without gradients.
    """

    ids: Tensor
    scores: Tensor
    boxes: Tensor
    last_output: Tensor | None = None
    long_memory: Tensor | None = None

    def select(self, rows: Tensor) -> Self:
        """The tracks of these rows, (K,) int64 or (N_t,) bool on any device."""
        changed: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            values: Tensor | None = getattr(self, field.name)
            changed[field.name] = None if values is None else values[rows.to(values.device)]
        return dataclasses.replace(self, **changed)
