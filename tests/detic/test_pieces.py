"""Pyramid, proposals, cascade, classifier and selection on numbers that can be followed by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms, nms

from tests.detic.rebuild import SMALL, small_network
from trackmill.models.detic.cascade import LARGEST_LOG_SCALE, apply_deltas
from trackmill.models.detic.centernet import ProposalSettings, proposals
from trackmill.models.detic.classifier import ZeroShotClassifier, classifier_matrix, set_matrix
from trackmill.models.detic.network import DeticNetwork
from trackmill.models.detic.pooling import levels_of, pool
from trackmill.models.detic.selection import Candidates, class_scores, find_candidates, nms_by_class, select
from trackmill.models.detic.settings import STRIDES, DetectionSettings


@pytest.fixture(scope="module")
def network() -> DeticNetwork:
    return small_network()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_pyramid_is_what_single_layers_give(network: DeticNetwork) -> None:
    pyramid, state = network.backbone, network.backbone.state_dict()
    maps = [drawn(2, channels, 64 // stride, 96 // stride) for channels, stride in zip(SMALL.in_channels, (8, 16, 32))]

    def conv(name: str, values: Tensor, **options: int) -> Tensor:
        return F.conv2d(values, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    inner = {level: conv(f"fpn_lateral{level}", maps[level - 3]) for level in (3, 4, 5)}
    for level in (4, 3):
        inner[level] = inner[level] + inner[level + 1].repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = [conv(f"fpn_output{level}", inner[level], padding=1) for level in (3, 4, 5)]
    expected.append(conv("top_block.p6", expected[2], stride=2, padding=1))  # from p5 as it comes out
    expected.append(conv("top_block.p7", expected[3].clamp(min=0), stride=2, padding=1))
    found = pyramid.levels(maps)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def heat_with(cells: dict[tuple[int, int, int], float], shapes: list[tuple[int, int]]) -> list[Tensor]:
    """Logits of one image, -20 (a probability below 1e-4) everywhere but in (level, row, column)."""
    logits = [torch.full((1, 1, *shape), -20.0) for shape in shapes]
    for (level, row, column), logit in cells.items():
        logits[level][0, 0, row, column] = logit
    return logits


SHAPES = [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]


def test_a_cell_becomes_a_box_around_its_location_and_is_not_clipped() -> None:
    distances = [torch.zeros(1, 4, *shape) for shape in SHAPES]
    distances[1][0, :, 2, 0] = torch.tensor([2.0, 0.5, 1.0, 3.0])
    ((boxes, scores),) = proposals(heat_with({(1, 2, 0): 0.3}, SHAPES), distances)
    # Location 0 * 16 + 8, 2 * 16 + 8; distances in strides of 16. x0 lies outside of the image, and stays there.
    assert boxes.tolist() == [[8 - 32, 40 - 8, 8 + 16, 40 + 48]]
    assert scores.item() == pytest.approx(math.sqrt(1 / (1 + math.exp(-0.3))), rel=1e-6)


def test_a_cell_without_any_distance_has_the_least_side() -> None:
    ((boxes, _),) = proposals(heat_with({(0, 0, 0): 2.0}, SHAPES), [torch.zeros(1, 4, *shape) for shape in SHAPES])
    torch.testing.assert_close(boxes, torch.tensor([[4.0, 4.0, 4.01, 4.01]]))


def test_a_cell_at_the_threshold_is_no_proposal() -> None:
    logits = heat_with({}, SHAPES)
    ((boxes, _),) = proposals(logits, [torch.ones(1, 4, *shape) for shape in SHAPES])
    assert boxes.shape == (0, 4)
    just = torch.tensor(1e-4).logit().item()
    found = proposals(
        heat_with({(0, 1, 1): just + 1e-3, (0, 5, 5): just - 1e-3}, SHAPES),
        [torch.ones(1, 4, *shape) for shape in SHAPES],
    )
    assert len(found[0][0]) == 1


def test_proposals_are_the_best_after_nms_over_all_levels_with_ties() -> None:
    logits = [drawn(2, 1, *shape, seed=level) for level, shape in enumerate(SHAPES)]
    distances = [drawn(2, 4, *shape, seed=9 + level).abs() * 3 for level, shape in enumerate(SHAPES)]
    settings = ProposalSettings(per_level=40, kept=20, nms_iou=0.6)
    for image, (boxes, scores) in enumerate(proposals(logits, distances, settings)):
        every: list[tuple[float, list[float]]] = []
        for level, stride in enumerate(STRIDES):
            rows = []
            for y in range(SHAPES[level][0]):
                for x in range(SHAPES[level][1]):
                    left, top, right, bottom = (distances[level][image, :, y, x] * stride).tolist()
                    cx, cy = x * stride + stride // 2, y * stride + stride // 2
                    heat = logits[level][image, 0, y, x].sigmoid().item()
                    rows.append((heat, [cx - left, cy - top, cx + right, cy + bottom]))
            every += sorted(rows, reverse=True)[:40]
        wanted_boxes = torch.tensor([box for _, box in every])
        wanted_scores = torch.tensor([heat for heat, _ in every]).sqrt()
        keep = nms(wanted_boxes, wanted_scores, 0.6)[:20]
        torch.testing.assert_close(boxes, wanted_boxes[keep], rtol=0, atol=1e-3)
        torch.testing.assert_close(scores, wanted_scores[keep])


def test_whoever_scores_like_the_last_proposal_stays() -> None:
    cells = {(0, 0, x): 1.0 for x in range(6)} | {(0, 7, 0): 3.0}
    tiny = [torch.full((1, 4, *shape), 0.1) for shape in SHAPES]
    ((_, scores),) = proposals(heat_with(cells, SHAPES), tiny, ProposalSettings(kept=3))
    assert len(scores) == 7
    assert scores[0] > scores[1] == scores[-1]


def test_deltas_move_centres_in_sides_and_grow_to_a_limit() -> None:
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]] * 3)
    deltas = torch.tensor([[1.0, -2.0, 0.0, 0.0], [0.0, 0.0, 5 * math.log(2), 0.0], [0.0, 0.0, 500.0, -500.0]])
    moved = apply_deltas(boxes, deltas, (10.0, 10.0, 5.0, 5.0))
    assert moved[0].tolist() == pytest.approx([12, 12, 32, 52])  # a tenth of 20 to the right, a fifth of 40 up
    assert moved[1].tolist() == pytest.approx([0, 20, 40, 60])
    assert (moved[2, 2] - moved[2, 0]).item() == pytest.approx(20 * math.exp(LARGEST_LOG_SCALE), rel=1e-5)
    assert (moved[2, 3] - moved[2, 1]).item() == pytest.approx(0, abs=1e-5)  # no limit to shrinking


@pytest.mark.parametrize(
    ("side", "level"),
    [(0, 0), (111.9, 0), (112.1, 0), (223.9, 0), (224.1, 1), (447.9, 1), (448.1, 2), (5000, 2), (math.nan, 0)],
)
def test_levels_of_boxes(side: float, level: int) -> None:
    assert levels_of(torch.tensor([[3.0, 4.0, 3.0 + side, 4.0 + side]])).item() == level


def test_regions_come_in_the_order_of_boxes_and_odd_ones_are_harmless() -> None:
    levels = [torch.full((2, 4, 64 >> shift, 64 >> shift), float(shift + 1)) for shift in range(3)]
    levels = [level * torch.tensor([1.0, 10.0])[:, None, None, None] for level in levels]
    inside, large = [100.0, 100.0, 200.0, 200.0], [10.0, 10.0, 490.0, 490.0]
    boxes = [torch.tensor([large, inside]), torch.tensor([[math.nan] * 4, inside, [math.inf, 0, math.inf, 0]])]
    pooled = pool(levels, boxes, 7)
    assert pooled[:, 0, 3, 3].tolist()[:2] == [3.0, 1.0]
    assert pooled[3, 0, 3, 3].item() == 10.0
    assert pooled.isfinite().all()
    assert pool(levels, [torch.zeros(0, 4), torch.zeros(0, 4)], 7).shape == (0, 4, 7, 7)


@torch.no_grad()
def test_stages_pool_clipped_boxes_but_the_first_not(network: DeticNetwork) -> None:
    levels = [drawn(1, SMALL.channels, 64 // stride, 96 // stride + 1, seed=stride) for stride in STRIDES]
    outside = torch.tensor([[-40.0, -30.0, 50.0, 40.0]])
    heads = network.roi_heads
    boxes, expected = outside, []
    for stage, weights in enumerate(((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))):
        if stage:
            limits = zip(boxes.unbind(1), (90, 60, 90, 60), strict=True)
            boxes = torch.stack([each.clamp(0, most) for each, most in limits], 1)
        feature = heads.box_head[stage](pool(levels, [boxes], 7))
        expected.append(feature)
        boxes = apply_deltas(boxes, heads.box_predictor[stage].bbox_pred(feature), weights)
    found, features = heads(levels, [outside], [(60, 90)])
    torch.testing.assert_close(found, boxes)
    for one, other in zip(features, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_logits_are_fifty_cosines_and_zero_for_the_background() -> None:
    classifier = ZeroShotClassifier(6, 4, 1)
    vectors = drawn(3, 4) * torch.tensor([[1.0], [9.0], [0.1]])
    set_matrix([classifier], classifier_matrix(vectors))
    features = drawn(5, 6, seed=1)
    logits = classifier(features)
    projected = classifier.linear(features)
    for row in range(5):
        for column in range(3):
            cosine = F.cosine_similarity(projected[row], vectors[column], dim=0)
            assert logits[row, column].item() == pytest.approx(50 * cosine.item(), abs=1e-4)
    assert (logits[:, 3] == 0).all()


@pytest.mark.parametrize("factor", [1e-30, 1e-20, 1.0, 1e30])
def test_the_length_of_vectors_does_not_matter(factor: float) -> None:
    vectors = drawn(3, 4)
    torch.testing.assert_close(classifier_matrix(vectors * factor)[:, :3], F.normalize(vectors, dim=1).t())


def test_scores_are_roots_of_mean_probabilities() -> None:
    stages = [torch.tensor([[0.9, 0.2, 0.5]]), torch.tensor([[0.1, 0.2, 0.5]]), torch.tensor([[0.8, 0.5, 0.5]])]
    scores = class_scores(stages, torch.tensor([0.5]))
    torch.testing.assert_close(scores, torch.tensor([[math.sqrt(0.6 * 0.5), math.sqrt(0.3 * 0.5)]]))
    assert class_scores(stages, torch.tensor([0.5]), one_class=True)[0, 1] == 0
    tied = [torch.tensor([[0.4, 0.4, 0.1, 0.9]])]  # the background, last, is no class
    assert class_scores(tied, torch.tensor([1.0]), one_class=True).count_nonzero() == 2


class Given(ZeroShotClassifier):
    """Logits that a test has chosen."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__(1, 1, logits.shape[1] - 1)
        self.logits = logits

    def forward(self, features: Tensor) -> Tensor:
        return self.logits[features[:, 0].long()]


def test_candidates_are_above_the_threshold_and_finite_whatever_is_looked_at_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits = drawn(9, 5, seed=3)
    logits[4, 2] = math.nan  # the whole row goes
    boxes = drawn(9, 4).abs()
    boxes[7, 1] = math.inf
    rows = torch.arange(9.0)[:, None]
    settings = DetectionSettings(score_threshold=0.6)
    every = find_candidates([Given(logits)], [rows], torch.ones(9), boxes, settings)
    scores = logits.sigmoid().sqrt()[:, :-1]
    wanted = [(r, c) for r in range(9) for c in range(4) if r not in (4, 7) and scores[r, c] > 0.6]
    assert list(zip(every.rows.tolist(), every.labels.tolist(), strict=True)) == wanted
    assert 5 < len(wanted) < 28
    monkeypatch.setattr("trackmill.models.detic.selection._SCORES_AT_ONCE", 10)
    for one, other in zip(find_candidates([Given(logits)], [rows], torch.ones(9), boxes, settings), every, strict=True):
        assert torch.equal(one, other)


def many(num_boxes: int, num_classes: int, levels: int = 0) -> tuple[Tensor, Candidates]:
    """Boxes and a candidate for each of their classes; scores of few different values if `levels`."""
    generator = torch.Generator().manual_seed(num_boxes)
    corners = torch.rand(num_boxes, 2, generator=generator) * 60
    boxes = torch.cat([corners, corners + 5 + torch.rand(num_boxes, 2, generator=generator) * 40], 1)
    number = num_boxes * num_classes
    scores = (torch.randperm(number, generator=generator) / number).view(num_boxes, num_classes)
    if levels:
        scores = (scores * levels).round() / levels
    rows, labels = torch.nonzero(scores >= 0, as_tuple=True)
    return boxes, Candidates(rows, labels, scores.flatten())


@pytest.mark.parametrize(("num_boxes", "num_classes"), [(40, 5), (120, 60)], ids=["few: offsets", "many: by class"])
@pytest.mark.parametrize("levels", [0, 30], ids=["different scores", "many equal scores"])
@pytest.mark.parametrize("max_boxes", [25, 300, 100_000])
def test_selection_is_torchvisions_nms_over_all_candidates(
    num_boxes: int, num_classes: int, levels: int, max_boxes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trackmill.models.detic.selection._FIRST_LOOK", 300)
    boxes, candidates = many(num_boxes, num_classes, levels)
    found = select(candidates, boxes, DetectionSettings(max_boxes=max_boxes))
    keep = batched_nms(boxes[candidates.rows], candidates.scores, candidates.labels, 0.5)[:max_boxes]
    assert torch.equal(found.scores, candidates.scores[keep])
    if not levels:
        assert torch.equal(found.rows, candidates.rows[keep])
        assert torch.equal(found.labels, candidates.labels[keep])
    elif max_boxes == 100_000:  # the order of equal scores is torchvision's own affair
        wanted = zip(candidates.rows[keep].tolist(), candidates.labels[keep].tolist(), strict=True)
        assert set(zip(found.rows.tolist(), found.labels.tolist(), strict=True)) == set(wanted)


def test_selection_whatever_the_class() -> None:
    boxes, candidates = many(60, 50)
    settings = DetectionSettings(class_agnostic_nms=True, max_boxes=20)
    found = select(candidates, boxes, settings)
    keep = nms(boxes[candidates.rows], candidates.scores, 0.5)[:20]
    assert torch.equal(found.rows, candidates.rows[keep])
    assert torch.equal(found.labels, candidates.labels[keep])
    assert len(set(found.rows.tolist())) == len(found.rows)  # a box has one class


def test_nms_by_class_of_nothing_and_of_single_boxes() -> None:
    nothing = torch.zeros(0)
    assert nms_by_class(torch.zeros(0, 4), nothing, nothing.long(), 0.5).tolist() == []
    boxes = torch.tensor([[0.0, 0, 9, 9]] * 3)
    assert nms_by_class(boxes, torch.tensor([0.1, 0.3, 0.2]), torch.tensor([2, 0, 1]), 0.5).tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("score_threshold", -0.1),
        ("score_threshold", math.nan),
        ("score_threshold", "0.3"),
        ("nms_iou", 1.1),
        ("nms_iou", None),
        ("max_boxes", 0),
        ("max_boxes", 2.5),
    ],
)
def test_settings_out_of_range(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option):
        DetectionSettings(**{option: value})
