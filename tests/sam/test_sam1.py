"""`Sam1Segmenter` gives the masks of segment-anything's own predictor, for pictures of any shape."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from segment_anything import SamPredictor
from torch import Tensor, nn

from tests.proposers.scenes import noise, tiny_sam
from tests.sam.test_encoder import enliven, error
from trackmill.models.sam.sam1 import Sam1Segmenter, num_read
from trackmill.models.sam.segmenter import Decoded, Features

SHAPES = [(60, 100), (130, 41), (64, 64), (7, 300), (1, 100)]
"""(H, W): wide, tall, the model's own, less than a token high, and one pixel high."""


def make_sam(seed: int = 0, **settings: Any) -> Any:
    return enliven(tiny_sam(seed, **settings), seed)


def prompts(kind: str, height: int, width: int, num_prompts: int = 5) -> NDArray[np.float64]:
    """(N, 2) points or (N, 4) boxes inside a picture."""
    generator = np.random.default_rng(height)
    points = generator.random((num_prompts, 2, 2)) * (width, height)
    return points[:, 0] if kind == "points" else np.concatenate([points.min(1), points.max(1)], axis=1)


def reference(sam: Any, image: NDArray[np.uint8], kind: str, given: NDArray[np.float64]) -> tuple[Tensor, ...]:
    """Embedding, predicted IoU (N, K), low-resolution logits (N, K, h, w) and those of the picture (N, K, H, W)."""
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    if kind == "points":
        coords = torch.as_tensor(predictor.transform.apply_coords(given, image.shape[:2]))
        labels = torch.ones(len(given), dtype=torch.int)
        logits, iou, low = predictor.predict_torch(coords[:, None], labels[:, None], return_logits=True)
    else:
        each = [predictor.predict(box=box, multimask_output=False, return_logits=True) for box in given]
        logits, iou, low = (torch.from_numpy(np.stack(part)) for part in zip(*each))
    return predictor.features[0], iou, low, logits


def resized(decoded: Decoded, features: Features) -> Tensor:
    """(M, H, W) logits by the resize chain; what was not decoded is nan, and so is every pixel that reads it."""
    chain = features.chain
    masks = torch.full((len(decoded.logits), 1, *chain.source), torch.nan)
    masks[:, 0, : decoded.logits.shape[1], : decoded.logits.shape[2]] = decoded.logits
    for stage in chain.stages:
        masks = F.interpolate(masks, stage.size, mode="bilinear", align_corners=False)
        masks = masks[..., : stage.keep[0], : stage.keep[1]]
    return masks[:, 0]


@pytest.mark.parametrize("kind", ["points", "boxes"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", [0, 1])
def test_same_as_the_predictor(seed: int, shape: tuple[int, int], kind: str) -> None:
    sam = make_sam(seed)
    image = noise(*shape).image
    given = prompts(kind, *shape)
    embedding, iou, low, logits = reference(sam, image, kind, given)
    segmenter = Sam1Segmenter(sam)
    [features] = segmenter.encode([image])
    found = segmenter.decode(features, **{kind: given})

    assert (features.size, features.chain.size) == (shape, shape)
    assert error(features.embedding, embedding) < 1e-5
    torch.testing.assert_close(found.iou, iou, rtol=1e-5, atol=1e-5)
    rows, columns = found.logits.shape[1:]
    assert error(found.logits, low.flatten(0, 1)[:, :rows, :columns]) < 1e-5
    assert found.logits.is_contiguous()
    assert error(resized(found, features), logits.flatten(0, 1)) < 1e-5


def test_only_what_the_picture_reaches_is_decoded() -> None:
    segmenter = Sam1Segmenter(make_sam(image_size=128))
    sizes = {}
    for shape in [(128, 128), (64, 128), (128, 17), (8, 128)]:
        [features] = segmenter.encode([noise(*shape).image])
        found = segmenter.decode(features, points=prompts("points", *shape))
        sizes[shape] = found.logits.shape[1:]
    # A token more than half: the last row of the picture is drawn from both sides of the edge between two tokens.
    assert sizes == {(128, 128): (32, 32), (64, 128): (20, 32), (128, 17): (32, 8), (8, 128): (4, 32)}


def test_pictures_together_and_alone() -> None:
    segmenter = Sam1Segmenter(make_sam())
    images = [noise(*shape).image for shape in SHAPES]
    for image, together in zip(images, segmenter.encode(images)):
        [alone] = segmenter.encode([image])
        assert (together.size, together.input_size, together.chain) == (alone.size, alone.input_size, alone.chain)
        assert error(together.embedding, alone.embedding) < 1e-5
    assert segmenter.encode([]) == []


@pytest.mark.parametrize("kind", ["points", "boxes"])
def test_threshold(kind: str) -> None:
    segmenter = Sam1Segmenter(make_sam())
    [features] = segmenter.encode([noise(60, 100).image])
    given = prompts(kind, 60, 100, 9)
    every = segmenter.decode(features, **{kind: given})
    threshold = float(every.iou.median())
    some = segmenter.decode(features, **{kind: given}, iou_above=threshold)
    assert torch.equal(some.iou, every.iou)
    assert torch.equal(some.kept, (every.iou.flatten() > threshold).nonzero()[:, 0])
    assert 0 < len(some.kept) < every.iou.numel()
    assert error(some.logits, every.logits[some.kept]) < 1e-5


@pytest.mark.parametrize(("kind", "num_masks"), [("points", 3), ("boxes", 1)])
def test_no_prompts(kind: str, num_masks: int) -> None:
    segmenter = Sam1Segmenter(make_sam())
    [features] = segmenter.encode([noise(60, 100).image])
    found = segmenter.decode(features, **{kind: prompts(kind, 60, 100)[:0]})
    assert found.iou.shape == (0, num_masks) and len(found.kept) == len(found.logits) == 0


@pytest.mark.parametrize("shape", [(1, 1000), (1000, 3), (0, 5)])
def test_thin_pictures_are_refused(shape: tuple[int, int]) -> None:
    height, width = shape
    with pytest.raises(ValueError, match=f"{width} x {height} pixels"):
        Sam1Segmenter(make_sam()).encode([np.zeros((height, width, 3), np.uint8)])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "points or boxes"),
        ({"points": np.zeros((1, 2)), "boxes": np.zeros((1, 4))}, "not both"),
        ({"points": np.zeros((1, 4))}, r"points must be \(N, 2\), not \(1, 4\)"),
        ({"boxes": np.zeros(4)}, r"boxes must be \(N, 4\), not \(4,\)"),
    ],
)
def test_wrong_prompts_are_refused(given: dict[str, Any], message: str) -> None:
    segmenter = Sam1Segmenter(make_sam())
    [features] = segmenter.encode([noise(60, 100).image])
    with pytest.raises(ValueError, match=message):
        segmenter.decode(features, **given)


def test_unknown_precision() -> None:
    with pytest.raises(ValueError, match=r"'float16' is unknown; use one of 'float32', 'bfloat16'"):
        Sam1Segmenter(make_sam(), precision="float16")  # type: ignore[arg-type]


def test_another_image_encoder() -> None:
    class Small(nn.Module):
        img_size = 64

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 32, 16, stride=16)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)

    sam = make_sam()
    sam.image_encoder = Small()
    image, given = noise(60, 100).image, prompts("points", 60, 100)
    embedding, iou, _, logits = reference(sam, image, "points", given)
    segmenter = Sam1Segmenter(sam)
    [features] = segmenter.encode([image])
    found = segmenter.decode(features, points=given)
    assert error(features.embedding, embedding.detach()) < 1e-5
    torch.testing.assert_close(found.iou, iou, rtol=1e-5, atol=1e-5)
    assert error(resized(found, features), logits.flatten(0, 1)) < 1e-5


def test_bfloat16_is_near_and_changes_no_parameter() -> None:
    sam = make_sam()
    before = copy.deepcopy(sam.state_dict())
    image, given = noise(60, 100).image, prompts("points", 60, 100)
    exact, half = Sam1Segmenter(sam), Sam1Segmenter(sam, precision="bfloat16")
    expected, found = (one.decode(one.encode([image])[0], points=given) for one in (exact, half))
    assert found.iou.dtype == found.logits.dtype == torch.float32
    assert 0 < float((found.logits - expected.logits).std() / expected.logits.std()) < 0.05
    torch.testing.assert_close(found.iou, expected.iou, rtol=0, atol=0.05)
    assert all(torch.equal(value, before[key]) for key, value in sam.state_dict().items())


def test_products_are_made_anew_on_another_device() -> None:
    """There is one device here: the segmenter is told that its products belong to another."""
    sam = make_sam()
    segmenter = Sam1Segmenter(sam)
    [features] = segmenter.encode([noise(60, 100).image])
    given = prompts("points", 60, 100)
    before = segmenter.decode(features, points=given).logits
    with torch.no_grad():
        sam.mask_decoder.output_upscaling[0].weight.mul_(2)
    assert torch.equal(segmenter.decode(features, points=given).logits, before)
    segmenter._folded_for = torch.device("meta")
    after = segmenter.decode(features, points=given).logits
    assert error(after, before) > 0.01
    assert torch.equal(after, Sam1Segmenter(sam).decode(features, points=given).logits)


@pytest.mark.parametrize(("source", "size"), [(256, 1024), (16, 64), (20, 64), (64, 64), (64, 48), (7, 100)])
def test_num_read(source: int, size: int) -> None:
    """No pixel that is kept reads what is said not to be read; and no more than one pixel too many is said to be."""

    def is_read(first: int, keep: int) -> bool:
        pixels = torch.zeros(1, 1, source)
        pixels[..., first:] = torch.nan
        return bool(F.interpolate(pixels, size, mode="linear", align_corners=False)[..., :keep].isnan().any())

    for keep in range(1, size + 1):
        read = num_read(source, size, keep)
        assert 2 <= read <= source
        assert not is_read(read, keep)
        assert is_read(read - 2, keep)


@pytest.mark.slow
def test_compiled() -> None:
    sam = make_sam()
    plain, compiled = Sam1Segmenter(sam), Sam1Segmenter(sam, compiled=True)
    image = noise(60, 100).image
    [expected], [features] = plain.encode([image]), compiled.encode([image])
    assert error(features.embedding, expected.embedding) < 1e-5
    for kind in ("points", "boxes"):
        given = prompts(kind, 60, 100)
        exact, found = plain.decode(expected, **{kind: given}), compiled.decode(features, **{kind: given})
        torch.testing.assert_close(found.iou, exact.iou, rtol=1e-5, atol=1e-5)
        assert error(found.logits, exact.logits) < 2e-5


def test_replaced_modules_are_called_as_they_are() -> None:
    """Whoever patches a model, or hangs hooks into it, gets what the patched model gives."""
    image, points = noise(60, 100).image, np.array([[20.0, 30.0], [70.0, 10.0]])
    plain = Sam1Segmenter(make_sam())
    expected = plain.decode(plain.encode([image])[0], points=points)

    sam = make_sam()
    sam.mask_decoder.register_forward_hook(lambda module, given, result: (result[0] + 1, result[1]))
    hooked = Sam1Segmenter(sam)
    found = hooked.decode(hooked.encode([image])[0], points=points)
    rows, columns = expected.logits.shape[1:]
    torch.testing.assert_close(found.logits[:, :rows, :columns], expected.logits + 1, rtol=1e-4, atol=1e-4)

    sam = make_sam()
    forward = sam.image_encoder.forward
    sam.image_encoder.forward = lambda batch: 2 * forward(batch)  # type: ignore[method-assign]
    patched = Sam1Segmenter(sam)
    (features,) = patched.encode([image])
    torch.testing.assert_close(features.embedding, 2 * plain.encode([image])[0].embedding, rtol=1e-4, atol=1e-4)


def test_exact_is_to_the_last_bit_and_excludes_the_rest() -> None:
    sam, image, points = make_sam(), noise(60, 100).image, np.array([[20.0, 30.0], [70.0, 10.0]])
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    coords = torch.as_tensor(predictor.transform.apply_coords(points, image.shape[:2]))[:, None]
    with torch.inference_mode():
        _, iou, logits = predictor.predict_torch(coords, torch.ones(2, 1), return_logits=True)
    exact = Sam1Segmenter(sam, exact=True)
    found = exact.decode(exact.encode([image])[0], points=points)
    assert torch.equal(found.iou, iou) and torch.equal(found.logits, logits.flatten(0, 1))
    with pytest.raises(ValueError, match="exact means"):
        Sam1Segmenter(sam, exact=True, precision="bfloat16")
