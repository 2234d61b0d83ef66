"""Crops of people: what is inside the frame, resized as a picture library would, and which boxes have none."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from trackmill.models.clip.image_tower import MEAN, STD  # noqa: E402
from trackmill.models.ipmot.crops import cut_crops  # noqa: E402

Tensor = torch.Tensor


def pixels(crops: Tensor) -> Tensor:
    """Before CLIP's normalisation."""
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD))
    return crops * std + mean


def frames(*, count: int = 1, height: int = 240, width: int = 320) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("box", "whole"),
    [
        ([20.0, 10.0, 60.0, 90.0], (20, 10, 60, 90)),  # enlarged
        ([20.4, 10.6, 59.3, 89.2], (20, 10, 60, 90)),  # every pixel that is touched
        ([0.0, 0.0, 320.0, 240.0], (0, 0, 320, 240)),  # in width made smaller, which a plain bilinear one would alias
        ([-30.0, -5.0, 50.0, 500.0], (0, 0, 50, 240)),  # outside on three sides
    ],
)
def test_a_crop_is_what_pil_cuts_and_resizes(box: list[float], whole: tuple[int, int, int, int]) -> None:
    images = (frames() * 255).round() / 255
    crops = cut_crops(images, [torch.tensor([box])])
    picture = Image.fromarray((images[0] * 255).round().byte().permute(1, 2, 0).numpy())
    expected = np.asarray(picture.crop(whole).resize((128, 256), Image.Resampling.BILINEAR)) / 255
    assert crops.images.shape == (1, 3, 256, 128) and crops.images.dtype == torch.float32
    assert np.abs(pixels(crops.images)[0].permute(1, 2, 0).numpy() - expected).max() < 1.5 / 255  # PIL rounds to bytes


def test_what_is_outside_or_small_is_left_out() -> None:
    first = [
        [10.0, 10.0, 30.0, 60.0],
        [400.0, 10.0, 450.0, 60.0],  # outside
        [-100.0, 10.0, 7.0, 60.0],  # 7 pixels inside
        [-100.0, 10.0, 8.0, 60.0],  # 8 pixels inside
        [10.0, 10.0, 30.0, 17.5],  # flat
        [float("nan"), 10.0, 30.0, 60.0],
    ]
    images = frames(count=3)
    crops = cut_crops(images, [torch.tensor(first), torch.zeros(0, 4), torch.tensor([[50.0, 50.0, 90.0, 90.0]])])
    assert crops.kept.tolist() == [True, False, False, True, False, False, True] and len(crops.images) == 3
    for row, (frame, box) in enumerate([(0, first[0]), (0, first[3]), (2, [50.0, 50.0, 90.0, 90.0])]):
        assert torch.equal(crops.images[row], cut_crops(images[frame : frame + 1], [torch.tensor([box])]).images[0])


def test_without_boxes_there_are_no_crops() -> None:
    crops = cut_crops(frames(count=2), [torch.zeros(0, 4), torch.zeros(0, 4)], size=(32, 16))
    assert crops.images.shape == (0, 3, 32, 16) and crops.kept.shape == (0,)
    assert cut_crops(frames(count=0), []).images.shape == (0, 3, 256, 128)


def test_boxes_of_another_number_of_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="boxes of 1 frames for 2 frames"):
        cut_crops(frames(count=2), [torch.zeros(1, 4)])
