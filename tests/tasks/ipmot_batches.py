"""IP-MOT's training module with a small network and a small CLIP, and batches drawn for it."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from tests.training.clip_runs import SMALL
from trackmill.models.clip.image_tower import ImageTowerSizes
from trackmill.models.clip.text_tower import TextTowerSizes
from trackmill.models.clip.towers import ClipSizes, ClipTowers
from trackmill.models.ipmot.model import IpMot
from trackmill.models.ipmot.trackbook import TrackBook
from trackmill.models.ipmot.variants import VARIANTS, Variant
from trackmill.pipeline.tasks.ipmot.batch import QueryBatch, QueryClip
from trackmill.pipeline.tasks.ipmot.module import IpMotTraining
from trackmill.pipeline.tasks.ipmot.settings import LossSection, MatchingSettings, TrackBookSection, pass_settings
from trackmill.pipeline.tasks.variant_changes import chosen_variant

FEW_PATCHES = ClipSizes(
    text=TextTowerSizes(width=64, layers=1, embedding=48),
    image=ImageTowerSizes(patch=32, grid=2, width=64, layers=1, embedding=48),
)
"""A CLIP that reads a crop in no time."""

SIZES = {
    **{f"text.{name}": value for name, value in vars(FEW_PATCHES.text).items()},
    **{f"image.{name}": value for name, value in vars(FEW_PATCHES.image).items()},
}
"""The same as `trackbook.clip_changes`."""


def small_towers(seed: int = 0) -> ClipTowers:
    """Both towers of `FEW_PATCHES`, with random weights that let gradients through."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ClipTowers(FEW_PATCHES)


def clip_file() -> dict[str, Tensor]:
    """The same under OpenAI's names."""
    towers = small_towers()
    pictures = {f"visual.{name}": each for name, each in towers.image.state_dict().items()}
    return {name: each.clone() for name, each in (towers.text.state_dict() | pictures).items()}


def small_variant(**changes: Any) -> Variant:
    """ip_mot_tiny, a good deal smaller."""
    return dataclasses.replace(chosen_variant("ip_mot_tiny", SMALL, VARIANTS), **changes)


def small_training(
    variant: Variant | None = None, seed: int = 0, matching: MatchingSettings | None = None, **loss: Any
) -> IpMotTraining:
    """The module; with CLIP and a TrackBook where the losses ask for them."""
    section = LossSection(**{"layers": 2, **loss})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = IpMot(variant or small_variant())
    book = clip = None
    if section.needs_clip:
        clip = small_towers(seed)
        book = TrackBook(TrackBookSection(capacity=32).settings(), width=FEW_PATCHES.text.width, seed=seed)
    return IpMotTraining(network, (), section, pass_settings(matching or MatchingSettings(), section), book, clip)


def made_clip(
    seed: int, people: tuple[tuple[int, ...], ...] = ((0, 1, 2), (0, 2, 3)), static: bool = False
) -> QueryClip:
    """A clip of noise, of a size of its own, in which the people of each frame stand at random.

    Args:
        seed: of everything; also whose people they are.
        people: ids of each frame.
        static: nobody has a key.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = 64 + 8 * (seed % 3), 96 - 8 * (seed % 2)
    places = torch.rand(16, 2, generator=generator) * torch.tensor([width - 24.0, height - 40.0])
    boxes = []
    for frame, ids in enumerate(people):
        corners = places[list(ids)] + 2 * frame
        boxes.append(torch.cat([corners, corners + torch.tensor([20.0, 36.0])], dim=1))
    return QueryClip(
        images=torch.randint(0, 255, (len(people), 3, height, width), dtype=torch.uint8, generator=generator),
        boxes=tuple(boxes),
        ids=tuple(torch.tensor(ids, dtype=torch.int64) for ids in people),
        keys=tuple(torch.tensor([-1 if static else 100 * seed + each for each in ids]).long() for ids in people),
        static=static,
        sample=f"clip {seed}",
    )


def made_batch(*clips: QueryClip) -> QueryBatch:
    """These clips."""
    return QueryBatch(clips=list(clips))
