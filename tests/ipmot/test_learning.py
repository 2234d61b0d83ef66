"""Training from nothing on a film of two moving squares: the loss falls, and the tracks are the squares."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import box_iou

from trackmill.models.backbones.multilevel import BACKBONES, MultiLevelBackbone
from trackmill.models.ipmot.clip_pass import run_clip
from trackmill.models.ipmot.clip_records import ClipPassSettings, ClipTargets
from trackmill.models.ipmot.frames import network_input
from trackmill.models.ipmot.model import IpMot
from trackmill.models.ipmot.sizes import DetectorSizes
from trackmill.models.ipmot.stream import Stream
from trackmill.models.ipmot.variants import Variant

SIDE, FRAMES = 32, 6
PEAK = 3e-3
SQUARE = 10


class Cells(nn.Module):
    """Maps of strides 4 and 8 that see little beyond their cell."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 16, 6, 4, 1), nn.Conv2d(16, 16, 2, 2)

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = self.fine(images).relu()
        return [fine, self.coarse(fine).relu()]


def cells() -> MultiLevelBackbone:
    return MultiLevelBackbone("cells", Cells(), channels=(16, 16), strides=(4, 8), divisor=8)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[IpMot]:
    monkeypatch.setitem(BACKBONES, "cells", cells)
    sizes = DetectorSizes(
        backbone="cells",
        hidden=32,
        heads=4,
        levels=2,
        encoder_layers=1,
        decoder_layers=2,
        feedforward=48,
        queries=6,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield IpMot(Variant(name="small", detector=sizes, embedding=0, min_area=0, short_side=SIDE, long_side=SIDE))


def film() -> tuple[NDArray[np.uint8], Tensor]:
    """(T, H, W, 3) pictures with a red and a blue square on grey, which pass each other; (T, 2, 4) xyxy boxes."""
    pictures, boxes = np.full((FRAMES, SIDE, SIDE, 3), 90, np.uint8), torch.empty(FRAMES, 2, 4)
    for frame in range(FRAMES):
        for person, (left, top) in enumerate([(1 + 4 * frame, 3), (21 - 4 * frame, 18)]):
            pictures[frame, top : top + SQUARE, left : left + SQUARE] = [(220, 30, 30), (30, 30, 220)][person]
            boxes[frame, person] = torch.tensor([left, top, left + SQUARE, top + SQUARE])
    return pictures, boxes


def learn(network: IpMot, steps: int) -> list[float]:
    """Train on pairs of frames; the loss of each step."""
    pictures, corners = film()
    values = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    images, masks = network_input(values, network.detector.mean, network.detector.std)
    boxes = torch.cat([corners[..., :2] + corners[..., 2:], 2 * (corners[..., 2:] - corners[..., :2])], dim=-1)
    boxes = boxes / (2 * SIDE)
    settings = ClipPassSettings()
    optimiser = torch.optim.AdamW(network.parameters(), lr=PEAK, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK, total_steps=steps, pct_start=0.1)
    rng = np.random.default_rng(0)
    losses = []
    network.train()
    for _ in range(steps):
        first = int(rng.integers(FRAMES - 1))
        pair = [first, min(FRAMES - 1, first + int(rng.integers(1, 4)))]
        targets = ClipTargets(boxes=[boxes[index] for index in pair], ids=[torch.arange(2)] * 2)
        result = run_clip(network, (images[pair], masks[pair]), targets, settings)
        loss = result.total(settings) / result.num_boxes
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 0.1)
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
    network.eval()
    return losses


def test_the_loss_falls(network: IpMot) -> None:
    losses = learn(network, 40)
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


@pytest.mark.slow
def test_it_learns_to_track(network: IpMot) -> None:
    losses = learn(network, 600)
    assert np.mean(losses[-20:]) < 0.1 * losses[0]

    pictures, corners = film()
    stream = Stream(network)
    found = [stream.step(picture) for picture in pictures]
    assert [each.ids.tolist() for each in found] == [[0, 1]] * FRAMES, (
        "two identities, from the first frame to the last"
    )
    order = overlaps(found[0].boxes, corners[0]).argmax(axis=1)
    for each, truth in zip(found, corners, strict=True):
        assert (np.diagonal(overlaps(each.boxes, truth[order])) > 0.6).all()


def overlaps(boxes: NDArray[np.float32], others: Tensor) -> NDArray[np.float32]:
    iou: NDArray[np.float32] = box_iou(torch.from_numpy(boxes), others).numpy()
    return iou
