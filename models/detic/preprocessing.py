"""Images as the network takes them: checked, resized by the released rule, normalised, padded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from trackmill.models.detic.settings import DIVISOR, IMAGENET_MEAN, IMAGENET_STD, Size
from trackmill.schemas.errors import InputError

_MOST = 255.0
_ROUNDING = 1e-3
"""So far a value may leave 0..255: what arithmetic in float32 leaves of a border."""


def resized_size(height: int, width: int, resize: Size | None) -> Size:
    """Size after resizing: the shorter side `resize[0]`, unless the longer one passes `resize[1]` (detectron2's rule).

    In its order of operations and with its rounding, `int(side + 0.5)`; at least one pixel each.
    """
    if resize is None:
        return height, width
    shorter, longer = resize
    scale = shorter * 1.0 / min(height, width)
    new_height, new_width = (shorter * 1.0, scale * width) if height < width else (scale * height, shorter * 1.0)
    if max(new_height, new_width) > longer:
        scale = longer * 1.0 / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return max(1, int(new_height + 0.5)), max(1, int(new_width + 0.5))


def padded_size(size: Size) -> Size:
    """Size after padding right and below to multiples of 32."""
    height, width = size
    return height + -height % DIVISOR, width + -width % DIVISOR


def check_resize(resize: Any) -> Size | None:
    """`(shorter side, longer side at most)` in pixels, or None.

    Raises:
        InputError: something else.
    """
    if resize is None:
        return None
    try:
        shorter, longer = map(int, resize)
        if (shorter, longer) != tuple(resize):
            raise ValueError("parts of pixels")
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"resize: should be (shorter side, longer side at most) or None for images as they are, found {resize!r}"
        ) from None
    if shorter < 1 or longer < 1:
        raise InputError(f"resize: sides should be 1 pixel or more, found {resize!r}")
    return shorter, longer


def check_image(image: Any, name: str) -> NDArray[Any]:
    """An image as an array, uint8 or float32.

    Args:
        image: (H, W, 3) RGB, uint8, or of a float type with values 0..255.
        name: for messages, such as `images[2]`.

    Raises:
        InputError: another shape, type or range; says how to mend it.
    """
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        turned = ": move the channels to the end" if array.ndim == 3 and array.shape[0] == 3 else ""
        raise InputError(f"{name}: should be an RGB image of shape (H, W, 3), found {array.shape}{turned}")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise InputError(f"{name}: should be uint8, or float with values 0 to 255, found {array.dtype}: convert it")
    low, high = float(array.min()), float(array.max())
    # A comparison with NaN is false.
    if not (low >= -_ROUNDING and high <= _MOST + _ROUNDING):
        what = f"values from {low:g} to {high:g}" if np.isfinite([low, high]).all() else "NaN or infinity"
        raise InputError(f"{name}: should have values 0 to 255, found {what}; nothing was normalised before, was it?")
    if 0 < high <= 1:
        warnings.warn(
            f"{name} has no value above 1, so it looks black; if its values are meant as 0 to 1, multiply by 255",
            stacklevel=3,
        )
    return np.asarray(array, np.float32)


def resize_image(image: NDArray[Any], size: Size) -> NDArray[Any]:
    """An image (H, W, 3) of height and width `size`, by Pillow's bilinear filter, which averages when it shrinks.

    uint8 stays uint8, as released. float32 stays float32: the same filter, channel by channel, without rounding.
    """
    height, width = size
    if image.shape[:2] == size:
        return image
    parts = [image] if image.dtype == np.uint8 else [image[:, :, channel] for channel in range(3)]
    resized = [
        np.asarray(Image.fromarray(np.ascontiguousarray(part)).resize((width, height), Image.Resampling.BILINEAR))
        for part in parts
    ]
    return resized[0] if image.dtype == np.uint8 else np.stack(resized, axis=-1)


def resized_ahead(
    images: Sequence[NDArray[Any]], sizes: Sequence[Size], groups: Sequence[Sequence[int]], threads: int
) -> Iterator[list[NDArray[Any]]]:
    """The resized images of each group, while the next group's are made in threads; Pillow lets others work meanwhile.

    Args:
        images: (H, W, 3) each.
        sizes: of each after resizing.
        groups: places in `images`.
        threads: 0: each group when it is asked for, and none ahead.
    """
    if not threads:
        for group in groups:
            yield [resize_image(images[place], sizes[place]) for place in group]
        return
    with ThreadPoolExecutor(threads) as pool:

        def begun(group: Sequence[int]) -> list[Future[NDArray[Any]]]:
            return [pool.submit(resize_image, images[place], sizes[place]) for place in group]

        ahead = begun(groups[0]) if groups else []
        for index in range(len(groups)):
            current, ahead = ahead, begun(groups[index + 1]) if index + 1 < len(groups) else []
            yield [each.result() for each in current]


def make_batch(images: Sequence[NDArray[Any]], sizes: Sequence[Size], device: torch.device) -> Tensor:
    """Images of one padded size as the network's input.

    Args:
        images: B arrays (H, W, 3), uint8 or float32 with values 0..255; those of another size are resized.
        sizes: height and width of each after resizing; all with the same `padded_size`.
        device: where the batch is made.

    Returns:
        (B, 3, H', W') float32; first normalised, then padded with zeros, which is the mean colour.
    """
    height, width = padded_size(sizes[0])
    mean, std = (torch.tensor(each, device=device).view(3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD))
    batch = torch.zeros(len(images), 3, height, width, device=device)
    for row, image, size in zip(batch, images, sizes, strict=True):
        resized = np.ascontiguousarray(resize_image(image, size))
        # A copy: torch wants memory that may be written to. Bytes travel, a fourth of the floats.
        pixels = torch.from_numpy(resized.copy() if not resized.flags.writeable else resized).to(device)
        row[:, : size[0], : size[1]] = (pixels.permute(2, 0, 1).float() - mean) / std
    return batch


def pad_batch(batch: Tensor, length: int) -> Tensor:
    """The batch with images of zeros behind it, up to `length`."""
    return F.pad(batch, (0, 0, 0, 0, 0, 0, 0, length - len(batch)))
