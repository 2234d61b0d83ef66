"""From frames and boxes of any size to what the network reads: a square of fixed side, and boxes in its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trackmill.models.layers.checked_boxes import checked_boxes
from trackmill.models.scaletrack.variants import Variant

_BEYOND = 0.01
"""How far values may lie outside of 0..1, as resizing by some filters leaves them."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """T frames of one clip in the network's size.

    Args:
        frames: (T, 3, S, S) RGB 0..1, the picture in the upper left.
        boxes: (N, 4) float32 xyxy in pixels of the square, of all frames.
        frame_of_box: (N,) int64 in 0..T-1.
        sizes: (1, 2) int64 height and width of the picture in the square; None: all of it.
        counts: boxes of each frame.
    """

    frames: Tensor
    boxes: Tensor
    frame_of_box: Tensor
    sizes: Tensor | None
    counts: list[int]


def prepare(frames: Tensor, boxes: Sequence[Tensor], variant: Variant, device: torch.device) -> Prepared:
    """Resize and pad, or stretch, as `variant.resize` says; the boxes move with the picture.

    Args:
        frames: (T, 3, H, W) float RGB 0..1.
        boxes: T tensors (N_t, 4) xyxy in pixels of `frames`; N_t may be 0, and boxes may leave the frame.
        variant: side of the square.
        device: where the result is.

    Raises:
        ValueError: frames have another shape, dtype or range; or see `checked_boxes`.
    """
    frames = checked_frames(frames)
    checked = checked_boxes(boxes, len(frames))
    height, width = frames.shape[-2:]
    size = fitted(height, width, variant)
    precise = torch.promote_types(frames.dtype, torch.float32)
    resized = frames.to(device, precise)
    if size != (height, width):
        resized = F.interpolate(resized, size, mode="bilinear", antialias=True, align_corners=False)
    padded = F.pad(resized, (0, variant.side - size[1], 0, variant.side - size[0]))
    flat = torch.cat(checked).to(device)
    scale = flat.new_tensor([size[1] / width, size[0] / height]).repeat(2)
    counts = [len(each) for each in checked]
    frame_of_box = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    whole = size == (variant.side, variant.side)
    sizes = None if whole else torch.tensor([size], device=device)
    return Prepared(padded, flat * scale, frame_of_box.to(device), sizes, counts)


def fitted(height: int, width: int, variant: Variant) -> tuple[int, int]:
    """Height and width in pixels that a picture has in the square."""
    side = variant.side
    if variant.resize == "stretch":
        return side, side
    longer = max(height, width)
    return max(1, round(height * side / longer)), max(1, round(width * side / longer))


def as_tensor(values: Any, name: str) -> Tensor:
    """Pixels as a tensor; an array becomes one.

    Raises:
        ValueError: they are neither.
    """
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} must be a tensor or an array, not {type(values).__name__}") from None


def checked_frames(frames: Tensor) -> Tensor:
    """A tensor (T, 3, H, W) of float RGB in 0..1; an array becomes one.

    Raises:
        ValueError: they are something else; says what.
    """
    frames = as_tensor(frames, "frames")
    if frames.ndim != 4 or frames.shape[1] != 3 or 0 in frames.shape:
        raise ValueError(
            f"frames must have the shape (T, 3, H, W) with at least one frame and pixel, not {tuple(frames.shape)}"
        )
    if not frames.is_floating_point():
        raise ValueError(f"frames must be float with values in 0..1, not {frames.dtype}: call .float() / 255 on them")
    lowest, highest = (float(each) for each in frames.detach().aminmax())
    if not (lowest >= -_BEYOND and highest <= 1 + _BEYOND):  # true for NaN too
        raise ValueError(
            f"frames must have finite values in 0..1, but these lie in {lowest:.4g}..{highest:.4g}; "
            "divide by 255 if they are in 0..255, and do not normalise them"
        )
    return frames
