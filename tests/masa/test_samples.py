"""Which boxes a loss is taken over: assignment by overlap, and random draws from a generator."""

import math

import pytest
import torch

from tests.masa.slow_boxes import random_boxes, slow_assign
from trackmill.models.masa.losses.assigning import (
    BACKGROUND,
    IGNORED,
    ROI_ASSIGNMENT,
    RPN_ASSIGNMENT,
    TRACK_ASSIGNMENT,
    AssignSettings,
    assign,
    pairwise_iou,
)
from trackmill.models.masa.losses.sampling import RPN_SAMPLING, TRACK_SAMPLING, SampleSettings, draw_evenly, sample


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("settings", [RPN_ASSIGNMENT, ROI_ASSIGNMENT, TRACK_ASSIGNMENT])
def test_assignment_agrees_with_a_slow_transcription(settings: AssignSettings) -> None:
    kinds = set()
    for seed in range(6):
        truths = random_boxes(9, seed)
        boxes = torch.cat([random_boxes(150, seed + 50), truths + 3, truths[:4] + 1])
        found = assign(boxes, truths, settings).tolist()
        assert found == slow_assign(boxes.double(), truths.double(), settings)
        kinds |= {min(each, 0) for each in found}
    assert kinds >= ({BACKGROUND, 0} if settings is ROI_ASSIGNMENT else {BACKGROUND, IGNORED, 0})


def test_an_object_without_a_good_box_takes_its_best_one_from_another() -> None:
    truths = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 6.0], [90.0, 90.0, 99.0, 99.0]])
    boxes = torch.tensor([[0.0, 0.0, 10.0, 9.0], [0.0, 20.0, 10.0, 30.0]])
    assert pairwise_iou(truths, boxes)[:, 0].tolist() == pytest.approx([0.9, 6 / 9, 0.0])
    assert assign(boxes, truths, RPN_ASSIGNMENT).tolist() == [1, BACKGROUND]
    assert assign(boxes, truths, TRACK_ASSIGNMENT).tolist() == [0, BACKGROUND]


def test_several_best_boxes_are_all_taken() -> None:
    truths = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    boxes = torch.tensor([[0.0, 0.0, 10.0, 4.0], [0.0, 6.0, 10.0, 10.0], [0.0, 0.0, 10.0, 3.5]])
    assert assign(boxes, truths, RPN_ASSIGNMENT).tolist() == [0, 0, IGNORED]


def test_without_objects_or_boxes_all_is_background() -> None:
    boxes, none = random_boxes(5, 0), torch.zeros(0, 4)
    for settings in (RPN_ASSIGNMENT, ROI_ASSIGNMENT):
        assert assign(boxes, none, settings).tolist() == [BACKGROUND] * 5
        assert assign(none, boxes, settings).tolist() == []


def _numbered(count: int) -> torch.Tensor:
    """Boxes that tell their index."""
    return torch.arange(count)[:, None] + torch.tensor([0.0, 0.0, 0.5, 0.5])


def test_nothing_is_drawn_where_nothing_has_to_be_left_out() -> None:
    generator = _seeded()
    before = generator.get_state()
    assigned = torch.tensor([BACKGROUND, 1, IGNORED, 0, BACKGROUND])
    samples = sample(_numbered(5), _numbered(2), assigned, TRACK_SAMPLING, generator)
    assert torch.equal(generator.get_state(), before)
    assert samples.positive_indices.tolist() == [0, 1, 3, 5] and samples.truths.tolist() == [0, 1, 1, 0]
    assert samples.negative_indices.tolist() == [2, 6]
    assert samples.boxes[:, 0].tolist() == [0, 1, 1, 3, 0, 4]


@pytest.mark.parametrize(
    ("num_positive", "num_negative", "settings", "expected"),
    [
        (300, 900, RPN_SAMPLING, (128, 128)),
        (10, 900, RPN_SAMPLING, (10, 246)),
        (300, 5, RPN_SAMPLING, (128, 5)),
        (300, 900, TRACK_SAMPLING, (256, 256)),
        (20, 900, TRACK_SAMPLING, (20, 60)),
        (0, 900, TRACK_SAMPLING, (0, 3)),
    ],
)
def test_numbers_drawn(
    num_positive: int, num_negative: int, settings: SampleSettings, expected: tuple[int, int]
) -> None:
    assigned = torch.cat(
        [
            torch.arange(num_positive) % 3,
            torch.full((num_negative,), BACKGROUND),
            torch.full((50,), IGNORED),
        ]
    )[torch.randperm(num_positive + num_negative + 50, generator=_seeded(1))]
    boxes = _numbered(len(assigned))
    samples = sample(boxes, torch.zeros(0, 4), assigned, settings, _seeded(2))
    assert (len(samples.positives), len(samples.negatives)) == expected
    for indices, right in (
        (samples.positive_indices, assigned >= 0),
        (samples.negative_indices, assigned == BACKGROUND),
    ):
        assert right[indices].all() and torch.equal(indices, indices.unique())
    assert torch.equal(samples.truths, assigned[samples.positive_indices])
    assert torch.equal(samples.boxes, boxes[torch.cat([samples.positive_indices, samples.negative_indices])])


def test_draws_depend_on_the_generator_alone() -> None:
    assigned = torch.full((500,), BACKGROUND)
    drawn = []
    for seed in (3, 3, 4):
        torch.manual_seed(len(drawn))
        state = torch.get_rng_state()
        drawn.append(sample(_numbered(500), torch.zeros(0, 4), assigned, RPN_SAMPLING, _seeded(seed)).negative_indices)
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_every_candidate_is_drawn_about_as_often() -> None:
    assigned, generator = torch.full((40,), BACKGROUND), _seeded(7)
    settings = SampleSettings(total=10, positive_share=0.5, add_truths=False)
    counts = torch.zeros(40)
    for _ in range(2000):
        counts[sample(_numbered(40), torch.zeros(0, 4), assigned, settings, generator).negative_indices] += 1
    assert counts.sum() == 20_000
    assert (counts - 500).abs().max() < 6 * math.sqrt(2000 * 0.25 * 0.75)


@pytest.mark.parametrize("seed", range(4))
def test_positives_are_drawn_evenly_over_the_objects(seed: int) -> None:
    objects = torch.tensor([0] * 100 + [1] * 100 + [2] * 3)[torch.randperm(203, generator=_seeded(seed))]
    candidates = torch.arange(203) * 2 + 1
    drawn = draw_evenly(candidates, objects, 60, _seeded(seed))
    assert len(drawn) == 60 and torch.equal(drawn, drawn.unique())
    share = objects[(drawn - 1) // 2].bincount(minlength=3).tolist()
    # 21 of each at first, then 15 more out of what the two larger ones have left.
    assert share[2] == 3 and share[0] >= 21 and share[1] >= 21


@pytest.mark.parametrize("seed", range(4))
def test_what_even_shares_draw_too_much_is_left_out(seed: int) -> None:
    objects = torch.tensor([0] * 200 + [1] * 20 + [2] * 20)
    drawn = draw_evenly(torch.arange(240), objects, 30, _seeded(seed))
    # round(30 / 3) + 1 = 11 of each are 33.
    share = objects[drawn].bincount(minlength=3).tolist()
    assert sum(share) == 30 and min(share) >= 8 and max(share) <= 11
