"""`Detic.detect` on a small network: pictures of all sizes, batches, options, precision, masks, other vocabularies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.detic.naive_swin import naive_swin
from tests.detic.rebuild import SMALL, noise_image, small_detic, small_network
from trackmill.models.detic.detector import DeticDetector, DeticOptions
from trackmill.models.detic.model import Detic, batches
from trackmill.models.detic.preprocessing import make_batch
from trackmill.models.detic.settings import Architecture
from trackmill.models.detic.vocabulary import Vocabulary
from trackmill.schemas.detections import Detections

PX, SCORE = 5e-3, 5e-6
"""What the number of images in a batch may change; measured 1e-4 and 5e-7 with the official networks."""


@pytest.fixture(scope="module")
def detic() -> Detic:
    return small_detic()


def match(found: Detections, wanted: Detections) -> None:
    """The same detections, in an order that is defined up to equal scores."""
    assert len(found) == len(wanted)
    free = np.ones(len(found), bool)
    for box, score, label in zip(wanted.boxes, wanted.scores, wanted.labels, strict=True):
        fits = free & (found.labels == label) & (np.abs(found.boxes - box).max(axis=1) <= PX)
        fits &= np.abs(found.scores - score) <= SCORE
        assert fits.any(), (box, score, label)
        free[np.flatnonzero(fits)[0]] = False


PICTURES = [noise_image(60, 90, seed) for seed in range(4)] + [
    noise_image(61, 89, 7),  # another size, padded to the same
    noise_image(90, 60, 8),
    noise_image(1, 1),
    noise_image(300, 3),
    np.zeros((60, 90, 3), np.uint8),  # everywhere the same: equal scores wherever one looks
    noise_image(33, 65).astype(np.float32),
]


@pytest.mark.parametrize("batch_size", [3, 16])
def test_results_do_not_depend_on_the_batch(detic: Detic, batch_size: int) -> None:
    alone = [detic.detect([image], 0.1, None)[0] for image in PICTURES]
    by_default = detic.detect(PICTURES, 0.1, None)  # on the CPU one at a time: the same bits
    assert all(np.array_equal(one.boxes, other.boxes) for one, other in zip(by_default, alone, strict=True))
    together = detic.detect(PICTURES, 0.1, None, batch_size=batch_size)
    for image, found, wanted in zip(PICTURES, together, alone, strict=True):
        match(found, wanted)
        assert (found.boxes >= 0).all()
        assert (found.boxes <= np.array(image.shape[1::-1] * 2)).all()
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert sum(len(each) > 0 for each in alone) >= 8
    again = detic.detect(PICTURES, 0.1, None, batch_size=batch_size)
    assert all(np.array_equal(one.boxes, other.boxes) for one, other in zip(again, together, strict=True))


def test_images_share_a_batch_only_with_those_of_their_padded_size() -> None:
    sizes = [(64, 96), (64, 64), (64, 96), (64, 96), (64, 64)]
    assert list(batches(sizes, 2)) == [[0, 2], [3], [1, 4]]
    assert list(batches([], 2)) == []


def test_padding_of_another_size_would_change_the_result(detic: Detic) -> None:
    """Why images are not padded to the largest of a batch: group norm and windows see the padding."""
    image = PICTURES[0]
    with torch.inference_mode():
        own = make_batch([image], [image.shape[:2]], torch.device("cpu"))
        larger = torch.nn.functional.pad(own, (0, 64, 0, 64))
        levels, more = detic.network.dense(own).logits[0], detic.network.dense(larger).logits[0]
    assert (levels - more[:, :, : levels.shape[2], : levels.shape[3]]).abs().max() > 1e-3


def test_one_image_instead_of_a_list_is_told(detic: Detic) -> None:
    with pytest.raises(ValueError, match=r"a list of images, found one image; write detect\(\[image\]\)"):
        detic.detect(noise_image(40, 50))  # type: ignore[arg-type]


def test_no_images_and_no_detections(detic: Detic) -> None:
    assert detic.detect([]) == []
    (found,) = detic.detect([PICTURES[0]], 1.0, None)
    assert found.boxes.shape == (0, 4)
    assert found.names == detic.names


def test_an_image_without_any_proposal_beside_one_with_some(monkeypatch: pytest.MonkeyPatch, detic: Detic) -> None:
    from trackmill.models.detic import network

    whole = network.proposals

    def only_the_second(*given: Any) -> Any:
        (boxes, scores), *others = whole(*given)
        return [(boxes[:0], scores[:0]), *others]

    wanted = detic.detect([PICTURES[1]], 0.1, None)[0]
    monkeypatch.setattr(network, "proposals", only_the_second)
    nothing, some = detic.detect(PICTURES[:2], 0.1, None, batch_size=2)
    assert len(nothing) == 0
    match(some, wanted)
    assert [len(each) for each in detic.detect([PICTURES[0]], 0.1, None)] == [0]


def test_a_low_threshold_serves_higher_ones(detic: Detic) -> None:
    (low,) = detic.detect([PICTURES[0]], 0.05, None, max_boxes=100_000)
    middle = float(np.median(low.scores))
    (high,) = detic.detect([PICTURES[0]], middle, None, max_boxes=100_000)
    match(high, low.select(low.scores > middle))
    assert 0 < len(high) < len(low)
    (few,) = detic.detect([PICTURES[0]], 0.05, None, max_boxes=7)
    assert np.array_equal(few.scores, low.scores[:7])
    without_nms: dict[str, Any] = {"nms_iou": 1.0, "max_boxes": 100_000}
    (every,) = detic.detect([PICTURES[0]], 0.05, None, **without_nms)
    (one,) = detic.detect([PICTURES[0]], 0.05, None, one_class_per_proposal=True, **without_nms)
    assert 0 < len(one) < len(every)


def test_boxes_are_in_pixels_of_the_image_that_was_given(detic: Detic) -> None:
    image = noise_image(100, 150)
    (found,) = detic.detect([image], 0.1, resize=(64, 80))
    resized = np.asarray(found.boxes) * np.array([80 / 150, 53 / 100] * 2)
    from trackmill.models.detic.preprocessing import resize_image

    (wanted,) = detic.detect([resize_image(image, (53, 80))], 0.1, None)
    np.testing.assert_allclose(resized, wanted.boxes, atol=1e-3)
    assert found.boxes[:, 2].max() <= 150


def test_swapping_the_vocabulary_swaps_nothing_else() -> None:
    detector = small_detic()
    before = {name: values.clone() for name, values in detector.network.state_dict().items()}
    first = detector.detect([PICTURES[0]], 0.1, None)[0]
    vectors = np.random.default_rng(0).standard_normal((9, SMALL.embedding)).astype(np.float32)
    detector.set_vocabulary(Vocabulary(vectors, tuple("abcdefghi")))
    assert detector.names == tuple("abcdefghi")
    (other,) = detector.detect([PICTURES[0]], 0.1, None)
    assert other.names == detector.names
    assert set(other.labels) - set(range(5))
    after = detector.network.state_dict()
    assert all(torch.equal(after[name], values) for name, values in before.items() if "zs_weight" not in name)
    own = before["roi_heads.box_predictor.0.cls_score.zs_weight"][:, :-1].t()
    detector.set_vocabulary(7 * own)  # of any length
    match(detector.detect([PICTURES[0]], 0.1, None)[0], first)
    with pytest.raises(ValueError, match="16"):
        detector.set_vocabulary(np.ones((4, 12), np.float32))


def test_masks_belong_to_their_boxes() -> None:
    detector = small_detic(masks=True)
    images = [PICTURES[0], PICTURES[7], PICTURES[1]]
    for image, found in zip(images, detector.detect(images, 0.1, (64, 96)), strict=True):
        assert found.masks is not None
        assert len(found.masks) == len(found)
        for box, mask in zip(found.boxes, found.masks, strict=True):
            if mask is not None:
                assert mask.x >= box[0] - 2
                assert mask.y >= box[1] - 2
                assert mask.x + mask.width <= min(box[2] + 2, image.shape[1])
                assert mask.y + mask.height <= min(box[3] + 2, image.shape[0])
        assert any(found.masks) or len(image) == 300
    assert small_detic().detect(images[:1], 0.1, None)[0].masks is None


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near(dtype: str) -> None:
    wanted = small_detic().detect([PICTURES[0]], 0.3, None, max_boxes=50)[0]
    found = small_detic(dtype=dtype).detect([PICTURES[0]], 0.25, None, max_boxes=100_000)[0]
    assert found.boxes.dtype == found.scores.dtype == np.float32
    near = 0
    for box, score, label in zip(wanted.boxes, wanted.scores, wanted.labels, strict=True):
        alike = (found.labels == label) & (np.abs(found.boxes - box).max(axis=1) < 2)
        near += bool((np.abs(found.scores[alike] - score) < 0.05).any())
    assert near >= 0.8 * len(wanted) > 0
    with pytest.raises(ValueError, match="bfloat16"):
        small_detic(dtype="bfloat")


@pytest.mark.slow
def test_compiled_gives_the_same() -> None:
    wanted = small_detic().detect(PICTURES[:3], 0.1, None)
    for found, other in zip(
        small_detic(compile=True).detect(PICTURES[:3], 0.1, None, batch_size=2), wanted, strict=True
    ):
        match(found, other)


def test_options_that_cannot_be_used(detic: Detic) -> None:
    for options in ({"batch_size": 0}, {"resize": (0, 5)}, {"nms_iou": 2.0}, {"max_boxes": 0}, {"score_threshold": -1}):
        with pytest.raises(ValueError, match=next(iter(options))):
            detic.detect([PICTURES[0]], **options)
    with pytest.raises(ValueError, match=r"images\[1\]"):
        detic.detect([PICTURES[0], np.zeros((5, 5), np.uint8)])


def test_the_detector_by_name_keeps_its_options(detic: Detic) -> None:
    asked = {"max_boxes": 5, "nms_iou": 0.3, "class_agnostic_nms": True}
    options = DeticOptions(min_score=0.1, short_side=64, long_side=96, **asked)
    detector = DeticDetector(detic, options)
    assert detector.names == detic.names
    assert detector.category_ids == (1, 2, 3, 4, 5)
    found = detector.detect(PICTURES[:2])
    wanted = detic.detect(PICTURES[:2], 0.1, (64, 96), **asked)
    for one, other in zip(found, wanted, strict=True):
        assert np.array_equal(one.boxes, other.boxes)
        assert len(one) == 5


def test_options_that_are_left_out_are_the_released_ones(detic: Detic, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(Detic, "detect", lambda _, images, **options: asked.append(options) or [])
    DeticDetector(detic, DeticOptions()).detect([])
    released = {"score_threshold": 0.3, "resize": (800, 1333), "one_class_per_proposal": False, "batch_size": None}
    assert asked == [released]
    DeticDetector(detic, DeticOptions(class_agnostic_nms=False, min_score=0.0)).detect([])
    assert asked[1] == {**released, "score_threshold": 0.0, "class_agnostic_nms": False}


@torch.no_grad()
def test_small_swin_is_what_loops_over_windows_give() -> None:
    network = small_network()
    batch = torch.randn(2, 3, 75, 90, generator=torch.Generator().manual_seed(1))  # odd in every stage
    found = network.backbone.bottom_up(batch)
    expected = naive_swin(
        network.backbone.bottom_up.state_dict(), batch, depths=SMALL.depths, heads=SMALL.heads, window=SMALL.window
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@torch.no_grad()
def test_resnet_has_its_strides_in_the_middle_convolution() -> None:
    shallow = Architecture(name="shallow", backbone="resnet", layers=(1, 1, 1, 1), channels=64, hidden=32, embedding=8)
    network = small_network(3, shallow)
    base = network.backbone.bottom_up.base
    assert [stage[0].conv2.stride for stage in (base.layer2, base.layer3, base.layer4)] == [(2, 2)] * 3
    assert [stage[0].conv1.stride for stage in (base.layer2, base.layer3, base.layer4)] == [(1, 1)] * 3
    maps = network.backbone_maps(torch.zeros(1, 3, 64, 96))
    assert [tuple(each.shape) for each in maps] == [(1, 512, 8, 12), (1, 1024, 4, 6), (1, 2048, 2, 3)]
    values = torch.randn(1, 64, 3, 3)
    expected = torch.nn.functional.batch_norm(
        values, base.bn1.running_mean, base.bn1.running_var, base.bn1.weight, base.bn1.bias
    )
    torch.testing.assert_close(base.bn1(values), expected)
    assert Detic(network, "abc").detect([PICTURES[0]], 0.1, None)[0].names == ("a", "b", "c")
