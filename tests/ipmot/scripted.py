"""A network that knows the film: who is in each frame, where, and how sure it is. For tests of what a stream decides.

A frame is a picture of one grey, whose number says which frame of the script it is. Detect query i finds person i as
long as no track does; a track query carries the number of its person as its content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Seen = Mapping[int, tuple[float, tuple[float, float, float, float]]]
"""By person: score, and cx, cy, w, h in 0..1 of the picture."""

NUM_DETECT = 4
SIDE = 32


@dataclass(frozen=True, kw_only=True)
class Carried:
    """Stands where `TrackQueries` do."""

    content: Tensor
    ids: Tensor


class Scripted(nn.Module):
    """What a stream needs of an IpMot."""

    def __init__(self, script: Sequence[Seen], num_detect: int = NUM_DETECT, **variant: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.script, self.num_detect = script, num_detect
        values = {"score_threshold": 0.5, "miss_tolerance": 3, "min_area": 100.0, "short_side": SIDE, "long_side": SIDE}
        self.variant = SimpleNamespace(name="scripted", **{**values, **variant})
        self.detector = SimpleNamespace(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), divisor=32)
        self.most_tracks = 0

    def encode(self, images: Tensor, masks: Tensor) -> int:
        assert images.shape[-1] % 32 == images.shape[-2] % 32 == 0
        return round(float(images[0][:, ~masks[0]].mean()) * 255)

    def step(self, number: int, tracks: Carried | None) -> SimpleNamespace:
        carried = [] if tracks is None else tracks.content.tolist()
        self.most_tracks = max(self.most_tracks, len(carried))
        persons = [person if person not in carried else -1 for person in range(self.num_detect)] + carried
        nobody = (0.1, (0.5, 0.5, 0.1, 0.1))
        found = [self.script[number].get(person, nobody) for person in persons]
        return SimpleNamespace(
            scores=torch.tensor([score for score, _ in found]),
            boxes=torch.tensor([box for _, box in found])[None],
            num_detect=self.num_detect,
            persons=torch.tensor(persons),
        )

    def next_tracks(self, output: Any, tracks: Carried | None, keep: Tensor, ids: Tensor) -> Carried | None:
        assert len(keep) == len(ids) == len(set(ids.tolist())), "another identity for each track"
        return Carried(content=output.persons[keep], ids=ids) if len(keep) else None


def film(count: int, height: int = 100, width: int = 200) -> list[NDArray[np.uint8]]:
    """Pictures of frames 0 to count - 1."""
    return [np.full((height, width, 3), number, np.uint8) for number in range(count)]
