"""Odd inputs: defined, or refused in one line that says what is wrong; low precision; graphs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.scaletrack.small import SMALL, clip, close, flat, patches, small_model, some_boxes
from trackmill.models.scaletrack.frames import fitted, prepare
from trackmill.models.scaletrack.model import ScaleTrack
from trackmill.models.scaletrack.variants import VARIANTS, Variant

BOX = torch.tensor([[3.0, 4.0, 30.0, 40.0]])


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        (torch.zeros(3, 8, 8), "shape (T, 3, H, W)"),
        (torch.zeros(1, 8, 8, 3), "shape (T, 3, H, W)"),
        (torch.zeros(0, 3, 8, 8), "at least one frame"),
        (torch.zeros(1, 3, 0, 8), "at least one frame and pixel"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "call .float() / 255"),
        (torch.full((1, 3, 8, 8), 200.0), "divide by 255"),
        (torch.full((1, 3, 8, 8), -1.5), "do not normalise"),
        (torch.full((1, 3, 8, 8), torch.nan), "finite values"),
        (torch.full((1, 3, 8, 8), torch.inf), "finite values"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8).numpy(), "not torch.uint8"),
        (None, "not NoneType"),
        ([Path("frame.png")], "not list"),
    ],
)
def test_frames_that_are_refused(frames: Any, text: str) -> None:
    with pytest.raises(ValueError) as raised:
        small_model()(frames, [BOX])
    assert text in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("boxes", "text"),
    [
        ([], "0 tensors for 1 images"),
        ([BOX, BOX], "2 tensors for 1 images"),
        ([BOX[0]], "boxes[0] must have the shape (N, 4)"),
        ([torch.zeros(2, 5)], "boxes[0] must have the shape (N, 4)"),
        ([torch.tensor([[0.0, 0, 5, 5], [0, 0, torch.nan, 5]])], "boxes[0][1] is"),
        ([torch.tensor([[9.0, 0, 5, 5]])], "x1 < x0"),
    ],
)
def test_boxes_that_are_refused(boxes: list[Tensor], text: str) -> None:
    with pytest.raises(ValueError) as raised:
        small_model()(clip(1), boxes)
    assert text in str(raised.value)


def test_arrays_and_empty_lists_are_taken() -> None:
    model, frames, boxes = small_model(), clip(3), some_boxes([2, 0, 1])
    with torch.no_grad():
        expected = model(frames, boxes)
        found = model(frames.numpy(), [boxes[0].numpy(), [], torch.empty(0)])
    close(found[0], expected[0])
    assert [each.shape for each in found] == [(2, 24), (0, 24), (0, 24)]
    close(model.stream().step(frames[0].numpy(), boxes[0].tolist()), expected[0])


def test_frame_of_a_stream_that_is_refused() -> None:
    with pytest.raises(ValueError, match="frame must have the shape"):
        small_model().stream().step(clip(1), BOX)


@pytest.mark.parametrize(
    "box",
    [
        (10.0, 10, 10, 10),  # empty
        (10.0, 10, 10, 30),  # empty in one direction
        (-50.0, -40, 20, 30),  # leaves the frame
        (-50.0, -40, 500, 300),  # larger than the frame
        (200.0, 100, 300, 200),  # outside
        (-30.0, -30, -10, -10),  # outside, on the other side
        (0.0, 0, 1e7, 1e7),
    ],
)
def test_odd_boxes_are_defined(box: tuple[float, ...]) -> None:
    with torch.no_grad():
        found = small_model()(clip(2), [torch.tensor([box])] * 2)
    for each in found:
        close(each.norm(dim=1), torch.ones(1))


def test_what_lies_outside_of_the_frame_does_not_count() -> None:
    model, frames = small_model(), clip(1)
    inside, beyond = torch.tensor([[20.0, 10, 64, 48]]), torch.tensor([[20.0, 10, 900, 77]])
    with torch.no_grad():
        close(model(frames, [inside])[0], model(frames, [beyond])[0])


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (300, 1), (64, 64), (200, 333)])
def test_any_picture(size: tuple[int, int]) -> None:
    """One frame of any size, down to one pixel; boxes keep their place in it."""
    height, width = size
    boxes = torch.tensor([[0.0, 0, width, height]])
    with torch.no_grad():
        found = small_model()(clip(1, height, width), [boxes])
    close(found[0].norm(dim=1), torch.ones(1))
    ready = prepare(clip(1, height, width), [boxes], replace(SMALL, side=64), torch.device("cpu"))
    assert ready.frames.shape == (1, 3, 64, 64)
    fits = fitted(height, width, replace(SMALL, side=64))
    assert max(fits) == 64
    assert ready.boxes.tolist() == [[0, 0, fits[1], fits[0]]]


def test_no_boxes_at_all() -> None:
    model = small_model().train()
    assert [each.shape for each in model(clip(2), [torch.zeros(0, 4)] * 2)] == [(0, 24), (0, 24)]
    empty = model.encode(clip(2, 64, 64)[None], torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert empty.shape == (2, 0, 24)
    # A trainer on several devices needs a gradient of every parameter on each of them, also where it is zero.
    empty.sum().backward()
    trained = dict(model.named_parameters())
    missing = [name for name, each in trained.items() if each.requires_grad and each.grad is None]
    assert not missing


def test_values_that_are_not_finite_show() -> None:
    """A network that overflows gives nan, and neither zeros nor an index beyond a map."""
    model = small_model()
    with torch.no_grad():
        model.encoder.layers[0][0].self_attn.sampling_offsets.bias[0] = torch.nan  # type: ignore[union-attr, index]
        assert model(clip(1), [BOX])[0].isnan().all()
        model = small_model()
        model.decoder.layers[0].temporal.offsets.bias[1] = torch.inf  # type: ignore[union-attr]
        model.decoder.layers[0].temporal.offsets.bias[4] = torch.nan  # type: ignore[union-attr]
        assert model(clip(1), [BOX])[0].isnan().all()


def test_half_precision() -> None:
    """Under autocast and with half weights the numbers are near those of float32; positions stay float32."""
    model, frames, boxes = small_model(), clip(3), some_boxes([3, 3, 3])
    with torch.no_grad():
        expected = torch.cat(model(frames, boxes))
        with torch.autocast("cpu", torch.bfloat16):
            mixed = torch.cat(model(frames, boxes))
        half = torch.cat(model.bfloat16()(frames, boxes))
    assert mixed.dtype == half.dtype == torch.float32
    assert (expected * mixed).sum(1).min() > 0.995
    assert (expected * half).sum(1).min() > 0.99


def test_double_precision() -> None:
    model, frames, boxes = small_model(), clip(3), some_boxes([3, 3, 3])
    with torch.no_grad():
        expected = torch.cat(model(frames, boxes))
        precise = torch.cat(model.double()(frames.double(), boxes))
    assert precise.dtype == torch.float64
    close(precise.float(), expected, atol=2e-5)


@pytest.mark.slow  # compiling takes half a minute; tests/scaletrack/test_size.py looks at the same operators
def test_compiled() -> None:
    """The network compiles to one graph, and the graph gives its numbers."""
    model, frames = small_model(bands=True), clip(4, 64, 64)
    boxes, frame_of_box = flat(some_boxes([2, 2, 2, 2], 64, 64))
    sizes = torch.tensor([[48, 64]])

    def step(frames: Tensor, earlier: Tensor | None) -> tuple[Tensor, Tensor | None]:
        maps = model.backbone_maps(frames, sizes)
        return model.encode_maps(maps, boxes, frame_of_box, sizes, earlier=earlier)

    compiled = torch.compile(step, fullgraph=True)
    with torch.no_grad():
        expected, earlier = step(frames, None)
        found, remembered = compiled(frames, None)
        close(found, expected, atol=1e-5)
        close(compiled(frames, remembered)[0], step(frames, earlier)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"heads": 5}, "multiple of heads"),
        ({"norm_groups": 7}, "multiple of norm_groups"),
        ({"channels": 6, "heads": 2, "norm_groups": 2}, "multiple of 4"),
        ({"window": 0}, "window must be at least 1"),
        ({"resize": "crop"}, "pad or stretch"),
        ({"cross_reference": "boxes"}, "box or point"),
        ({"levels": ()}, "at least one"),
        ({"levels": (5,)}, "gives 3 maps"),
        ({"dropout": 1.0}, "dropout"),
        ({"adaptive_spread": 1.0}, "adaptive_spread must be in 0..1"),
        ({"adaptive_spread": float("nan")}, "adaptive_spread must be in 0..1"),
        ({"temporal_reach": -1.0}, "temporal_reach must be above 0"),
        ({"extra_levels": -1}, "extra_levels must be at least 0"),
        ({"bands_start": float("inf")}, "bands_start must be finite"),
        ({"side": 60}, "multiple of 16"),
    ],
    ids=str,
)
def test_variants_that_are_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError) as raised:
        ScaleTrack(
            replace(SMALL, side=64, **changes) if "side" not in changes else replace(SMALL, **changes), patches()
        )
    assert text in str(raised.value)
    assert "small" in str(raised.value)


def test_variants_have_their_names() -> None:
    assert all(name == variant.name for name, variant in VARIANTS.items())
    assert VARIANTS["scaletrack_s"] == Variant(name="scaletrack_s", backbone="dinov2_vits14")


def test_a_stream_s_maps_keep_their_shapes() -> None:
    """Also where maps of another shape have as many cells, which would be read in the wrong places."""
    model, box = small_model(), torch.tensor([[1.0, 1.0, 20.0, 20.0]])
    stream = model.stream()
    wide, high = (model.backbone_maps(torch.rand(1, 3, *size)) for size in ((64, 96), (96, 64)))
    stream.step_maps(wide, box)
    with pytest.raises(ValueError, match="do not follow maps of"):
        stream.step_maps(high, box)
    stream.step_maps(wide, box)
    stream.reset()
    stream.step_maps(high, box)
