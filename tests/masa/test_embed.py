"""A model in use: padding, batches, boxes that are odd, and proposals."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import trackmill.models.masa
from trackmill.models.masa.model import Masa
from trackmill.models.masa.padding import normalise_and_pad
from trackmill.models.masa.variants import IMAGENET_MEAN, IMAGENET_STD, VARIANTS


@pytest.fixture(scope="module", params=["convs", "bands"])
def model(request: pytest.FixtureRequest) -> Masa:
    """A small model, with each kind of track head, whose offsets are not all zero, as they are in a fresh one."""
    size = {"convs": 256, "bands": 2832}[request.param]
    variant = replace(VARIANTS["masa_lite0"], track_head=request.param, embed_channels=size)
    model = trackmill.models.masa.load(variant, "imagenet", compatible_offsets=True)
    torch.manual_seed(4)
    for block in model.masa_adapter[1].dyhead_blocks:
        torch.nn.init.normal_(block.spatial_conv_offset.weight, std=0.05)
    return model


def pictures(batch: int, height: int, width: int) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0)) * 255


BOXES = torch.tensor([[4.0, 6.0, 50.5, 70.25], [0.0, 0.0, 90.0, 75.0], [20.0, 20.0, 28.0, 30.0]])


def test_padding_is_zero_after_normalisation_on_the_right_and_below() -> None:
    images = pictures(2, 33, 40)
    batch = normalise_and_pad(images, VARIANTS["masa_r50"])
    assert batch.shape == (2, 3, 64, 64)
    for channel in range(3):
        expected = (images[:, channel] - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        torch.testing.assert_close(batch[:, channel, :33, :40], expected)
    assert not batch[:, :, 33:].any() and not batch[..., 40:].any()


def test_sam_gets_exactly_1024_and_says_what_is_too_large() -> None:
    assert normalise_and_pad(pictures(1, 10, 1024), VARIANTS["masa_sam_vitb"]).shape == (1, 3, 1024, 1024)
    with pytest.raises(ValueError, match=r"1025 x 10 pixels .* at most 1024 x 1024"):
        normalise_and_pad(pictures(1, 1025, 10), VARIANTS["masa_sam_vith"])


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.zeros(3, 8, 8), r"\(B, 3, H, W\)"),
        (torch.zeros(1, 8, 8, 3), r"\(B, 3, H, W\)"),
        (torch.zeros(1, 3, 0, 8), "at least one pixel"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), r"call \.float\(\)"),
    ],
    ids=["no batch", "channels last", "no pixels", "integers"],
)
def test_odd_images_are_refused(model: Masa, images: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        model.embed(images, [torch.zeros(0, 4)] * len(images))


def test_each_image_of_a_batch_gives_what_it_gives_alone(model: Masa) -> None:
    images = pictures(3, 75, 90)
    boxes = [BOXES, torch.zeros(0, 4), BOXES[1:]]
    together = model.embed(images, boxes)
    size = model.variant.embed_channels
    assert [tuple(each.shape) for each in together] == [(3, size), (0, size), (2, size)]
    for index in (0, 2):
        (alone,) = model.embed(images[index : index + 1], [boxes[index]])
        torch.testing.assert_close(together[index], alone, rtol=0, atol=1e-3)
    assert not torch.allclose(together[0][1], together[2][0], atol=0.1)  # the same box on other pictures


def test_a_box_gives_the_same_embedding_in_any_company(model: Masa) -> None:
    images = pictures(1, 75, 90)
    (together,) = model.embed(images, [BOXES])
    for index in range(len(BOXES)):
        (alone,) = model.embed(images, [BOXES[index : index + 1]])
        torch.testing.assert_close(together[index : index + 1], alone, rtol=0, atol=1e-3)


def test_no_boxes_at_all_give_empty_embeddings(model: Masa) -> None:
    found = model.embed(pictures(2, 40, 40), [torch.zeros(0, 4)] * 2)
    assert [tuple(each.shape) for each in found] == [(0, model.variant.embed_channels)] * 2


def test_boxes_outside_the_image_or_without_area_are_embedded(model: Masa) -> None:
    odd = torch.tensor([[-30.0, -20.0, 20.0, 30.0], [80.0, 60.0, 300.0, 200.0], [500, 500, 600, 600], [9, 9, 9, 9]])
    (found,) = model.embed(pictures(1, 75, 90), [odd])
    assert found.shape == (4, model.variant.embed_channels) and bool(found.isfinite().all())


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        ([BOXES], "1 tensors for 2 images"),
        ([BOXES, torch.zeros(4)], r"boxes\[1\] must have the shape \(N, 4\)"),
        ([BOXES, torch.zeros(2, 5)], r"boxes\[1\] must have the shape \(N, 4\)"),
        ([torch.tensor([[0.0, 0, 5, 5], [0, 0, float("nan"), 5]]), BOXES], r"boxes\[0\]\[1\] is .*not finite"),
        ([BOXES, torch.tensor([[0.0, 0, float("inf"), 5]])], r"boxes\[1\]\[0\] is .*not finite"),
        ([BOXES, torch.tensor([[10.0, 0, 5, 5]])], r"boxes\[1\]\[0\] is .*x1 < x0"),
    ],
    ids=["too few", "one axis", "five columns", "nan", "infinite", "inverted"],
)
def test_odd_boxes_are_refused(model: Masa, boxes: list[Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        model.embed(pictures(2, 40, 40), boxes)


def test_integer_boxes_and_arrays_are_taken(model: Masa) -> None:
    images = pictures(1, 75, 90)
    whole = torch.tensor([[4, 6, 50, 70]])
    (expected,) = model.embed(images, [whole.float()])
    for given in (whole, whole.numpy(), whole.double()):
        torch.testing.assert_close(model.embed(images, [given])[0], expected)


def test_levels_can_be_used_for_both_heads(model: Masa) -> None:
    images = pictures(1, 75, 90)
    with torch.no_grad():
        levels = model.features(images)
    assert [tuple(each.shape) for each in levels[:3]] == [(1, 128, 12, 12), (1, 128, 6, 6), (1, 128, 3, 3)]
    torch.testing.assert_close(model.embed_levels(levels, [BOXES])[0], model.embed(images, [BOXES])[0])
    for one, other in zip(model.propose_levels(levels, 75, 90), model.propose(images), strict=True):
        torch.testing.assert_close(one, other)


def test_proposals_lie_inside_the_image_and_do_not_depend_on_the_batch(model: Masa) -> None:
    precise = copy.deepcopy(model).double()  # so that no box is near enough to a threshold to fall on either side
    images = pictures(2, 40, 50)
    together = precise.propose(images)
    for index, (boxes, scores) in enumerate(together):
        assert len(boxes) == len(scores) > 0
        assert bool((boxes >= 0).all()) and bool((boxes[:, 2] <= 50).all()) and bool((boxes[:, 3] <= 40).all())
        assert bool((scores.diff() <= 0).all())
        for found, alone in zip((boxes, scores), precise.propose(images[index : index + 1])[0], strict=True):
            torch.testing.assert_close(found, alone)


def test_embedding_leaves_no_gradient_and_training_has_one(model: Masa) -> None:
    images = pictures(1, 75, 90)
    assert not model.embed(images, [BOXES])[0].requires_grad
    model.embed_levels(model.features(images), [BOXES])[0].sum().backward()
    assert bool(model.backbone.conv_stem.weight.grad.any())
    model.zero_grad(set_to_none=True)
