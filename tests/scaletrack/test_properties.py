"""What an embedding depends on, and what it does not: other boxes, later frames, padding, the rest of the batch."""

from __future__ import annotations

import pytest
import torch

import trackmill.models.scaletrack.model as scaletrack
from tests.scaletrack.small import STRIDE, clip, close, differs, flat, small_model, some_boxes
from trackmill.models.masa.band_layout import SIX_BANDS

VARIANTS = [
    {},  # the paper's
    {"temporal": False},
    {"cross_attention": False},
    {"spatial": False, "modulation": False},
    {"decoder": False},
    {"encoder": False},
    {"encoder": False, "decoder": False, "head": False},
    {"bands": True, "bands_start": 0.7},
    {"bands": True, "bands_start": 0.7, "band_layout": SIX_BANDS},
    {"extra_levels": 2, "shared_encoder": True, "cross_reference": "point", "pass_queries": False},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_other_boxes_do_not_matter(changes: dict[str, object]) -> None:
    model, frames = small_model(**changes), clip()
    boxes = some_boxes([4, 3, 0, 5, 2])
    fewer = [each[1::2] for each in boxes]
    with torch.no_grad():
        all_boxes, some = model(frames, boxes), model(frames, fewer)
    for every, part in zip(all_boxes, some):
        close(part, every[1::2])
    assert differs(all_boxes[0][:1], all_boxes[0][1:2])


def test_later_frames_do_not_matter_and_earlier_ones_do() -> None:
    model, frames, boxes = small_model(), clip(6), some_boxes([2] * 6)
    changed = frames.clone()
    changed[3] = clip(1, seed=9)[0]
    with torch.no_grad():
        before, after = model(frames, boxes), model(changed, boxes)
        still = small_model(temporal=False)
        still_before, still_after = still(frames, boxes), still(changed, boxes)
    for t in range(3):
        close(after[t], before[t], atol=0)
    assert differs(after[3], before[3])
    for t in (4, 5):  # a window of three frames
        assert differs(after[t], before[t], by=1e-4), t
        close(still_after[t], still_before[t])


def test_window_ends() -> None:
    """Frames further back than the window are forgotten, and the last one within it is not."""
    model, frames, boxes = small_model(window=2), clip(5), some_boxes([3] * 5)
    with torch.no_grad():
        whole = model(frames, boxes)
        for first, same in ((1, True), (2, True), (3, False)):
            part = model(frames[first:], boxes[first:])
            assert torch.allclose(part[-1], whole[-1], atol=2e-6) == same, first


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@pytest.mark.parametrize("size", [(32, 48), (30, 41)], ids=["whole cells", "cells in part"])
def test_padding_does_not_matter(changes: dict[str, object], size: tuple[int, int]) -> None:
    """A clip padded to whole patches only, in a larger square, and beside a larger clip, gives the same embeddings.

    What lies in the padding does not matter either: here it is noise.
    """
    model = small_model(**changes)
    height, width = size
    rows, columns = (-(-end // (2 * STRIDE)) * 2 * STRIDE for end in size)
    frames = clip(3, height, width)
    boxes, frame_of_box = flat(some_boxes([3, 2, 2], height, width))
    boxes[0] = torch.tensor([width - 9.0, height - 8.0, width + 30.0, height + 30.0])  # leaves the picture
    boxes[3] = torch.tensor([0.0, 0.0, width, height])
    alone = torch.zeros(1, 3, 3, rows, columns)
    alone[0, ..., :height, :width] = frames
    square = torch.rand(2, 3, 3, 96, 96)
    square[1, ..., :height, :width] = frames
    other, other_frames = flat(some_boxes([1, 0, 4], 96, 96, seed=3))
    with torch.no_grad():
        expected = model.encode(alone, boxes, frame_of_box, torch.tensor([size]))
        sizes = torch.tensor([[96, 96], [height, width]])
        both = model.encode(square, torch.cat([other, boxes]), torch.cat([other_frames, frame_of_box + 3]), sizes)
        unsaid = model.encode(alone, boxes, frame_of_box)
    close(both[:, len(other) :], expected, atol=1e-5)
    if size == (32, 48):
        close(unsaid, expected, atol=1e-5)  # nothing is padding there


def test_order_of_boxes_and_clips() -> None:
    """Boxes of all clips may come in any order, and a batch gives what its clips give."""
    model = small_model()
    frames = torch.stack([clip(3, 64, 64, seed) for seed in range(3)])
    boxes, frame_of_box = flat(some_boxes([2, 0, 3, 1, 1, 4, 2, 2, 2], 64, 64))
    order = torch.randperm(len(boxes), generator=torch.Generator().manual_seed(1))
    sizes = torch.tensor([[64, 40], [64, 64], [20, 64]])
    with torch.no_grad():
        batch = model.encode(frames, boxes, frame_of_box, sizes)
        shuffled = model.encode(frames, boxes[order], frame_of_box[order], sizes)
        close(shuffled, batch[:, order])
        for index in range(3):
            own = frame_of_box // 3 == index
            one = model.encode(
                frames[index : index + 1], boxes[own], frame_of_box[own] - 3 * index, sizes[index : index + 1]
            )
            close(one, batch[:, own])


def test_forward_is_encode() -> None:
    """What people call resizes and pads; the network gets the same numbers as a trainer gives it."""
    model, frames, boxes = small_model(), clip(4, 24, 32), some_boxes([2, 2, 1, 0], 24, 32)
    larger = torch.nn.functional.interpolate(frames, (48, 64), mode="bilinear", antialias=True)
    square = torch.full((1, 4, 3, 64, 64), 0.5)
    square[0, ..., :48, :] = larger
    scaled, frame_of_box = flat([each * 2 for each in boxes])
    with torch.no_grad():
        expected = model.encode(square, scaled, frame_of_box, torch.tensor([[48, 64]]))
        found = torch.cat(model(frames, boxes))
    assert expected.shape == (2, 5, 24)
    close(found, expected[-1])
    close(expected.norm(dim=-1), torch.ones(2, 5))
    assert differs(expected[0], expected[1])


def test_stretching() -> None:
    model, frames = small_model(resize="stretch"), clip(2, 32, 64)
    boxes = some_boxes([2, 2], 32, 64)
    taller = torch.nn.functional.interpolate(frames, (64, 64), mode="bilinear", antialias=True)
    with torch.no_grad():
        for found, expected in zip(
            model(frames, boxes), model(taller, [b * torch.tensor([1, 2, 1, 2]) for b in boxes])
        ):
            close(found, expected)


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_stream_is_clip(changes: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Frame by frame, and in several clips at once, as all frames at once, and as some of them together."""
    model, frames = small_model(**changes), clip(5)
    boxes = some_boxes([2, 3, 0, 1, 2])
    with torch.no_grad():
        whole = model(frames, boxes)
        monkeypatch.setattr(scaletrack, "FRAMES_AT_ONCE", 2)
        for found, expected in zip(model(frames, boxes), whole, strict=True):
            close(found, expected)
    stream, other = model.stream(), model.stream()
    for t in range(5):
        close(stream.step(frames[t], boxes[t]), whole[t])
        other.step(frames[-1 - t], boxes[-1 - t])  # another video in between
    if model.variant.remembers:
        assert differs(stream.step(frames[0], boxes[0]), whole[0], by=1e-4)
    stream.reset()
    for t in range(2):
        maps = model.backbone_maps(*_square(frames[t]))
        close(stream.step_maps(maps, boxes[t], (48, 64)), whole[t])


def _square(frame: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.nn.functional.pad(frame[None], (0, 0, 0, 16)), torch.tensor([[48, 64]])


def test_stream_keeps_its_buffer_when_a_call_is_wrong() -> None:
    model, frames, boxes = small_model(), clip(3), some_boxes([2, 2, 2])
    with torch.no_grad():
        whole = model(frames, boxes)
    stream = model.stream()
    for t in range(3):
        with pytest.raises(ValueError, match="with x1 < x0"):
            stream.step(frames[2 - t], torch.tensor([[9.0, 9.0, 3.0, 12.0]]))
        close(stream.step(frames[t], boxes[t]), whole[t])
