"""Anchors, box deltas and what becomes of the heads' outputs, against slow transcriptions and official numbers."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torchvision.ops import nms

import trackmill.models.masa
from tests.fixtures import packed
from tests.masa.rebuild import check_map, official_images, rebuild_state
from tests.masa.slow_boxes import slow_anchors, slow_decode, slow_nms
from trackmill.models.layers.anchors import level_anchors, per_anchor
from trackmill.models.layers.box_coding import ROI_DEVIATIONS, RPN_DEVIATIONS, decode_boxes, encode_boxes
from trackmill.models.masa.model import Masa
from trackmill.models.masa.rpn_inference import (
    DetectionSettings,
    RpnSettings,
    _best_of_levels,
    roi_detections,
    rpn_proposals,
)


def test_anchors_agree_with_a_slow_transcription() -> None:
    for anchors, (height, width), stride in zip(level_anchors([(3, 5), (2, 3)], (4, 64)), [(3, 5), (2, 3)], (4, 64)):
        assert anchors.dtype == torch.float32
        np.testing.assert_allclose(anchors.numpy(), slow_anchors(height, width, stride), rtol=1e-6, atol=1e-5)


def test_maps_are_read_in_the_order_of_the_anchors() -> None:
    maps = torch.randn(2, 12, 3, 5)
    rows = per_anchor(maps, 4)
    for image, row, column, anchor in ((0, 0, 0, 0), (1, 2, 3, 1), (0, 1, 4, 2)):
        assert torch.equal(
            rows[image, (row * 5 + column) * 3 + anchor], maps[image, anchor * 4 : anchor * 4 + 4, row, column]
        )


@pytest.mark.parametrize("deviations", [RPN_DEVIATIONS, ROI_DEVIATIONS])
def test_decoding_undoes_encoding(deviations: tuple[float, float, float, float]) -> None:
    generator = torch.Generator().manual_seed(1)
    low = torch.rand(50, 2, generator=generator) * 100
    boxes = torch.cat([low, low + 1 + torch.rand(50, 2, generator=generator) * 50], dim=1)
    targets = boxes.roll(1, dims=0)
    torch.testing.assert_close(
        decode_boxes(boxes, encode_boxes(boxes, targets, deviations), deviations, 500, 500), targets, atol=1e-3, rtol=0
    )


def test_deltas_worked_by_hand() -> None:
    box, target = torch.tensor([[10.0, 20.0, 30.0, 60.0]]), torch.tensor([[16.0, 20.0, 36.0, 140.0]])
    expected = torch.tensor([[0.3, 1.0, 0.0, math.log(3)]])
    torch.testing.assert_close(encode_boxes(box, target, RPN_DEVIATIONS), expected)
    torch.testing.assert_close(
        encode_boxes(box, target, ROI_DEVIATIONS), expected / torch.tensor([[0.1, 0.1, 0.2, 0.2]])
    )


def test_decoded_boxes_are_cut_at_the_image_and_grow_by_a_bounded_factor() -> None:
    box = torch.tensor([[40.0, 40.0, 44.0, 44.0]])
    huge = decode_boxes(box, torch.tensor([[0.0, 0.0, 99.0, 99.0]]), RPN_DEVIATIONS, 10_000, 10_000)
    torch.testing.assert_close(huge, torch.tensor([[0.0, 0.0, 42 + 2 * 62.5, 42 + 2 * 62.5]]))
    cut = decode_boxes(box, torch.tensor([[0.0, 0.0, 99.0, 99.0]]), RPN_DEVIATIONS, 60, 80)
    assert cut.tolist() == [[0.0, 0.0, 80.0, 60.0]]
    small = decode_boxes(box, torch.tensor([[0.0, 0.0, -99.0, 0.0]]), RPN_DEVIATIONS, 100, 100)
    torch.testing.assert_close(small[:, 2] - small[:, 0], torch.tensor([4 / 62.5]), rtol=1e-4, atol=0)


def _maps(seed: int = 3) -> tuple[list[torch.Tensor], list[torch.Tensor], tuple[int, int]]:
    generator = torch.Generator().manual_seed(seed)
    sizes, strides = [(12, 16), (6, 8)], (8, 16)
    logits = [torch.randn(2, 3, *size, generator=generator) for size in sizes]
    deltas = [torch.randn(2, 12, *size, generator=generator) * 0.3 for size in sizes]
    return logits, deltas, strides


@pytest.mark.parametrize("settings", [RpnSettings(), RpnSettings(before_nms=40, iou_threshold=0.4, kept=25)])
def test_proposals_agree_with_a_slow_transcription(settings: RpnSettings) -> None:
    logits, deltas, strides = _maps()
    height, width = 90, 120  # the last rows and columns of cells lie in the padding
    found = rpn_proposals(logits, deltas, strides, height, width, settings)
    for image, (boxes, scores) in enumerate(found):
        everything = []
        for level, stride in enumerate(strides):
            rows, columns = logits[level].shape[-2:]
            of_level = []
            for index, anchor in enumerate(slow_anchors(rows, columns, stride)):
                cell, ratio = divmod(index, 3)
                row, column = divmod(cell, columns)
                score = 1 / (1 + math.exp(-float(logits[level][image, ratio, row, column])))
                delta = deltas[level][image, ratio * 4 : ratio * 4 + 4, row, column].tolist()
                of_level.append((score, slow_decode(anchor, delta, height, width)))
            of_level = sorted(of_level, key=lambda each: -each[0])[: settings.before_nms]
            of_level = [(score, box) for score, box in of_level if box[2] > box[0] and box[3] > box[1]]
            everything += slow_nms(of_level, settings.iou_threshold)
        expected = sorted(everything, key=lambda each: -each[0])[: settings.kept]
        assert len(expected) == len(boxes) and len(expected) > 20
        np.testing.assert_allclose(scores.numpy(), [score for score, _ in expected], atol=1e-6)
        np.testing.assert_allclose(boxes.numpy(), [box for _, box in expected], atol=1e-3)


def test_boxes_of_different_levels_do_not_suppress_each_other() -> None:
    """One anchor of stride 16 and one of stride 8 are made the same box."""
    logits = [torch.full((1, 3, 4, 4), -9.0), torch.full((1, 3, 2, 2), -9.0)]
    deltas = [torch.zeros(1, 12, 4, 4), torch.zeros(1, 12, 2, 2)]
    logits[0][0, 1, 2, 2], logits[1][0, 1, 1, 1] = 3.0, 2.0
    deltas[0][0, 6:8, 2, 2] = math.log(2)  # the 64-pixel square at (16, 16) grows to 128 pixels
    boxes, _ = rpn_proposals(logits, deltas, (8, 16), 200, 200, RpnSettings(kept=2))[0]
    torch.testing.assert_close(boxes, torch.tensor([[0.0, 0.0, 80.0, 80.0]] * 2))


def test_pairs_at_the_threshold_are_decided_as_released() -> None:
    """There, levels are kept apart by moving their boxes, and the rounding of the move decides."""
    generator = torch.Generator().manual_seed(2)
    corner = torch.arange(400.0)[:, None] * torch.tensor([2.0, 0.0]) + torch.rand(400, 2, generator=generator)
    size = 0.5 + torch.rand(400, 2, generator=generator)
    moved = size[:, :1] * torch.tensor([0.3 / 1.7, 0.0])  # an IoU of 0.7 with the box beside it, but for rounding
    boxes = torch.cat([torch.cat([corner, corner + size], 1), torch.cat([corner + moved, corner + moved + size], 1)])
    scores = torch.linspace(0.9, 0.1, len(boxes))
    step = boxes.max() + 1
    released, plain = nms(boxes + 3 * step, scores, 0.7), nms(boxes, scores, 0.7)
    assert released.tolist() != plain.tolist()
    nothing = [torch.zeros(0, 4), torch.zeros(0)]
    found, _ = _best_of_levels([nothing[0]] * 3 + [boxes], [nothing[1]] * 3 + [scores], RpnSettings())
    assert torch.equal(found, boxes[released])


def test_nothing_is_proposed_where_every_box_lies_outside() -> None:
    logits, deltas = [torch.zeros(1, 3, 2, 2)], [torch.full((1, 12, 2, 2), -50.0)]
    boxes, scores = rpn_proposals(logits, deltas, (8,), 16, 16)[0]
    assert boxes.shape == (0, 4) and scores.shape == (0,)


def test_proposals_carry_no_gradient() -> None:
    logits, deltas, strides = _maps()
    boxes, scores = rpn_proposals([each.requires_grad_() for each in logits], deltas, strides, 96, 128)[0]
    assert not boxes.requires_grad and not scores.requires_grad


def test_detections_agree_with_a_slow_transcription() -> None:
    generator = torch.Generator().manual_seed(8)
    low = torch.rand(2, 60, 2, generator=generator) * 90
    proposals = list(torch.cat([low, low + 5 + torch.rand(2, 60, 2, generator=generator) * 40], dim=2))
    proposals[1] = proposals[1][:17]
    count = sum(map(len, proposals))
    logits = torch.randn(count, 2, generator=generator) * 3
    deltas = torch.randn(count, 4, generator=generator)
    settings = DetectionSettings(score_threshold=0.3, iou_threshold=0.3, kept=12)
    found = roi_detections(logits, deltas, proposals, 100, 110, settings)
    start = 0
    for regions, (boxes, scores) in zip(proposals, found):
        certain = []
        for index, region in enumerate(regions.tolist(), start):
            yes, no = logits[index].tolist()
            score = math.exp(yes) / (math.exp(yes) + math.exp(no))
            delta = [value * unit for value, unit in zip(deltas[index].tolist(), (0.1, 0.1, 0.2, 0.2))]
            if score > 0.3:
                certain.append((score, slow_decode(region, delta, 100, 110)))
        start += len(regions)
        expected = slow_nms(certain, 0.3)[:12]
        assert len(expected) > 3
        np.testing.assert_allclose(scores.numpy(), [score for score, _ in expected], atol=1e-6)
        np.testing.assert_allclose(boxes.numpy(), [box for _, box in expected], atol=1e-3)


def test_no_regions_no_detections() -> None:
    found = roi_detections(torch.zeros(0, 2), torch.zeros(0, 4), [torch.zeros(0, 4)] * 2, 10, 10)
    assert [(tuple(boxes.shape), tuple(scores.shape)) for boxes, scores in found] == [((0, 4), (0,))] * 2


def _check_found(
    found: tuple[torch.Tensor, torch.Tensor], fixture: Mapping[str, np.ndarray], key: str, num_spare: int = 5
) -> None:
    """Hold the best boxes to a fixture's twenty, each used once; neighbours in score may have changed places."""
    boxes, scores = (each[: 20 + num_spare].numpy() for each in found)
    free = set(range(len(boxes)))
    for box, score in zip(fixture[f"{key}_top20_boxes"], fixture[f"{key}_top20_scores"]):
        alike = [i for i in free if abs(boxes[i] - box).max() <= 0.02 and abs(scores[i] - score) <= 1e-5]
        assert alike, f"{key}: no box like {box} with a score of {score}"
        free.remove(alike[0])
    assert len(found[0]) == int(fixture[f"{key}_count"])


@torch.no_grad()
def _check_official(model: Masa, name: str, image: str) -> None:
    images = official_images(image)
    height, width = images.shape[-2:]
    fixture = packed.read_arrays(f"{name}/forward_{image}.npz")
    levels = model.features(images)
    logits, deltas = model.rpn_head(levels)
    for index in range(len(levels)):
        check_map(logits[index], fixture, f"rpn_cls.{index}", 5e-5)
        check_map(deltas[index], fixture, f"rpn_reg.{index}", 5e-5)
    scores, moves = model.roi_head(model.pool(levels, [torch.from_numpy(fixture["boxes"])]))
    np.testing.assert_allclose(scores.numpy(), fixture["roi_cls_score"], rtol=0, atol=5e-5)
    np.testing.assert_allclose(moves.numpy(), fixture["roi_bbox_pred"], rtol=0, atol=5e-5)
    (proposals,) = rpn_proposals(logits, deltas, model.variant.strides, height, width)
    _check_found(proposals, fixture, "rpn")
    (detections,) = model.propose_levels(levels, height, width)
    _check_found(detections, fixture, "roi")


@pytest.mark.parametrize("image", ["rand256x320", pytest.param("truck", marks=pytest.mark.slow)])
def test_official_proposals_and_detections_of_r50(image: str) -> None:
    _check_official(trackmill.models.masa.load("masa_r50", rebuild_state("masa_r50")), "masa_r50", image)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_official_proposals_and_detections_of_sam() -> None:
    _check_official(
        trackmill.models.masa.load("masa_sam_vitb", rebuild_state("masa_sam_vitb")), "masa_sam_vitb", "rand256x320"
    )
