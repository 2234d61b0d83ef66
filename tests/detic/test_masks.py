"""Masks: the head layer by layer, and pasting against loops over pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.detic.rebuild import small_network
from trackmill.models.detic.mask_pasting import paste_masks
from trackmill.models.detic.network import Dense
from trackmill.schemas.masks import paste_mask


def slow_paste(probability: torch.Tensor, box: list[float], height: int, width: int) -> np.ndarray:
    """(height, width) bool: each pixel's centre is looked up between the centres of 28 x 28 cells."""
    values = F.pad(probability.double(), (1, 1, 1, 1)).numpy()  # zero beyond the borders
    pixels = np.zeros((height, width), bool)
    for row in range(height):
        for column in range(width):
            y = (row + 0.5 - box[1]) / (box[3] - box[1]) * 28 - 0.5
            x = (column + 0.5 - box[0]) / (box[2] - box[0]) * 28 - 0.5
            if not (-1 < x < 28 and -1 < y < 28):
                continue
            y0, x0 = math.floor(y), math.floor(x)
            dy, dx = y - y0, x - x0
            around = values[y0 + 1 : y0 + 3, x0 + 1 : x0 + 3]
            mean = around[0] * (1 - dy) + around[1] * dy
            pixels[row, column] = mean[0] * (1 - dx) + mean[1] * dx >= 0.5
    return pixels


@pytest.mark.parametrize(
    "box",
    [[3.2, 4.7, 30.1, 21.9], [0.0, 0.0, 40.0, 30.0], [10.4, 3.0, 11.1, 29.0], [38.0, 28.5, 40.0, 30.0]],
    ids=["inside", "all", "narrower than a pixel", "corner"],
)
def test_pasting_looks_pixels_up(box: list[float]) -> None:
    probability = torch.rand(28, 28, generator=torch.Generator().manual_seed(1)).repeat_interleave(4, 0)[:28]
    (mask,) = paste_masks(probability[None], torch.tensor([box]), 30, 40)
    found = np.zeros((30, 40), bool) if mask is None else paste_mask(mask, 30, 40)
    wanted = slow_paste(probability, box, 30, 40)
    assert (found != wanted).sum() <= 1  # one half within rounding
    assert wanted.any()


def test_a_mask_without_a_pixel_is_none() -> None:
    assert paste_masks(torch.zeros(1, 28, 28), torch.tensor([[1.0, 1.0, 9.0, 9.0]]), 30, 40) == (None,)
    assert paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), 30, 40) == ()


@torch.no_grad()
def test_the_head_layer_by_layer_and_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small_network()
    head, state = network.roi_heads.mask_head, network.roi_heads.mask_head.state_dict()
    regions = torch.randn(3, 64, 14, 14, generator=torch.Generator().manual_seed(1))
    hidden = regions
    for number in range(1, 5):
        name = f"mask_fcn{number}"
        hidden = F.conv2d(hidden, state[f"{name}.weight"], state[f"{name}.bias"], padding=1).relu()
    hidden = F.conv_transpose2d(hidden, state["deconv.weight"], state["deconv.bias"], stride=2).relu()
    expected = F.conv2d(hidden, state["predictor.weight"], state["predictor.bias"]).sigmoid()[:, 0]
    torch.testing.assert_close(head(regions), expected)

    levels = [torch.randn(2, 64, 16 >> level, 16 >> level) for level in range(5)]
    dense = Dense(levels, levels, levels)
    boxes = [torch.tensor([[0.0, 0, 50, 60], [9, 9, 99, 99], [5, 5, 6, 6]]), torch.zeros(0, 4)]
    whole = network.masks(dense, boxes)
    assert [each.shape for each in whole] == [(3, 28, 28), (0, 28, 28)]
    monkeypatch.setattr("trackmill.models.detic.mask_head._AT_ONCE", 2)
    torch.testing.assert_close(network.masks(dense, boxes)[0], whole[0])
