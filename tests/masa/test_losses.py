"""The losses against slow transcriptions, cases worked by hand, finite differences and official numbers."""

import math

import numpy as np
import pytest
import torch

from tests.fixtures import packed
from tests.masa.slow_boxes import random_boxes, slow_anchors, slow_assign
from trackmill.models.layers.box_coding import ROI_DEVIATIONS, RPN_DEVIATIONS, encode_boxes
from trackmill.models.masa.losses.assigning import BACKGROUND, RPN_ASSIGNMENT
from trackmill.models.masa.losses.auxiliary import margin_loss
from trackmill.models.masa.losses.contrastive import match_instances, pair_targets, paper_contrast, released_contrast
from trackmill.models.masa.losses.detection import SMOOTH_L1_BETA, RpnLossSettings, roi_losses, rpn_losses
from trackmill.models.masa.losses.sampling import Samples, SampleSettings

CASES = ("multi_positive", "one_positive_few_negatives", "single_row", "no_positive", "row_of_only_positives")


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _pair(seed: int, share: float, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """Embeddings of 7 key and 15 reference boxes; about a `share` of the pairs are positive."""
    generator = _seeded(seed)
    key = torch.randn(7, 12, generator=generator, dtype=dtype)
    ref = torch.randn(15, 12, generator=generator, dtype=dtype)
    return key, ref, torch.rand(7, 15, generator=generator) < share


def _slow_released(key: torch.Tensor, ref: torch.Tensor, targets: torch.Tensor) -> float:
    rows = []
    for q, wanted in zip(key.double().tolist(), targets.tolist()):
        logits = [sum(a * b for a, b in zip(q, r)) for r in ref.double().tolist()]
        positives = [logit for logit, yes in zip(logits, wanted) if yes]
        negatives = [logit for logit, yes in zip(logits, wanted) if not yes]
        if positives:
            denominator = sum(map(math.exp, positives)) / len(positives) + sum(map(math.exp, negatives))
            rows.append(-sum(logit - math.log(denominator) for logit in positives) / len(positives))
    return 0.25 * sum(rows) / max(1, len(rows))


def _cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b)) / math.hypot(*a) / math.hypot(*b)


def _slow_paper(key: torch.Tensor, ref: torch.Tensor, targets: torch.Tensor) -> float:
    loss = 0.0
    for q, wanted in zip(key.double().tolist(), targets.tolist()):
        powers = [math.exp(_cosine(q, r) / 0.07) for r in ref.double().tolist()]
        negatives = sum(power for power, yes in zip(powers, wanted) if not yes)
        loss -= sum(math.log(power / (power + negatives)) for power, yes in zip(powers, wanted) if yes)
    return loss


def _slow_margin(key: torch.Tensor, ref: torch.Tensor, targets: torch.Tensor) -> float:
    positive, negative = [], []
    for q, wanted in zip(key.double().tolist(), targets.tolist()):
        for r, yes in zip(ref.double().tolist(), wanted):
            if yes:
                positive.append((1 - min(max(_cosine(q, r), 0), 1)) ** 2)
            else:
                negative.append(min(max(_cosine(q, r) - 0.1, 0), 1) ** 2)
    kept = positive + sorted(negative, reverse=True)[: 3 * len(positive)]
    return sum(kept) / len(kept) if kept else 0.0


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize(
    ("loss", "slow"),
    [(released_contrast, _slow_released), (paper_contrast, _slow_paper), (margin_loss, _slow_margin)],
)
def test_losses_agree_with_slow_transcriptions(loss, slow, share: float) -> None:
    for seed in range(3):
        key, ref, targets = _pair(seed, share)
        assert float(loss(key, ref, targets)) == pytest.approx(slow(key, ref, targets), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("loss", [released_contrast, paper_contrast, margin_loss])
def test_gradients_agree_with_finite_differences(loss) -> None:
    key, ref, targets = _pair(4, 0.15, torch.float64)
    targets[2] = True  # a row without negatives
    targets[3] = False
    inputs = (key.requires_grad_(), ref.requires_grad_())
    assert torch.autograd.gradcheck(lambda k, r: loss(k, r, targets), inputs)


@pytest.mark.parametrize("loss", [released_contrast, paper_contrast, margin_loss])
@pytest.mark.parametrize("shape", [(0, 5), (4, 0), (4, 5)])
def test_without_a_positive_pair_a_contrast_is_zero_and_so_is_its_gradient(loss, shape: tuple[int, int]) -> None:
    key, ref = (torch.randn(count, 8, requires_grad=True) for count in shape)
    value = loss(key, ref, torch.zeros(shape, dtype=torch.bool))
    value.backward()
    assert float(value.detach()) == 0
    for each in (key, ref):
        assert each.grad is not None and not each.grad.any()


def test_large_dot_products_do_not_overflow() -> None:
    key = torch.tensor([[300.0, 0.0]], requires_grad=True)
    ref = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.5, 0.0]])
    value = released_contrast(key, ref, torch.tensor([[True, False, False]]))
    value.backward()
    assert float(value.detach()) == pytest.approx(0.25 * 300)
    assert key.grad is not None and key.grad.isfinite().all()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("loss", "name", "short"), [(released_contrast, "loss_track", "track"), (margin_loss, "loss_track_aux", "aux")]
)
def test_official_values_and_gradients(loss, name: str, short: str, case: str) -> None:
    stored = packed.read_arrays("masa_r50/loss_functions.npz")
    key, ref = (torch.from_numpy(stored[f"{case}.{side}"]).requires_grad_() for side in ("key", "ref"))
    value = loss(key, ref, torch.from_numpy(stored[f"{case}.target"]) > 0)
    value.backward()
    assert float(value.detach()) == pytest.approx(float(stored[f"{case}.{name}"]), rel=1e-6, abs=1e-7)
    for side, each in (("key", key), ("ref", ref)):
        np.testing.assert_allclose(each.grad.numpy(), stored[f"{case}.grad_{short}_{side}"], rtol=1e-5, atol=1e-7)


def test_instances_match_by_ids_above_zero() -> None:
    key, ref = torch.tensor([0, 1, 7, 4, -3, 9]), torch.tensor([9, 0, 7, 7, 2, 1, -3])
    assert match_instances(key, ref).tolist() == [-1, 5, 2, -1, -1, 0]
    assert match_instances(key, ref[:0]).tolist() == [-1] * 6
    assert match_instances(key[:0], ref).tolist() == []


def test_targets_of_a_pair_worked_by_hand() -> None:
    """Three objects in the key view, of which the second is missing in the reference view, which has two."""
    targets = pair_targets(torch.tensor([1, -1, 0]), torch.tensor([0, 1, 2, 0]), torch.tensor([1, 0, 1]), 5)
    assert targets.int().tolist() == [[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 0, 1, 0, 0]]


def _slow_rpn(
    logits: list[torch.Tensor],
    deltas: list[torch.Tensor],
    strides: tuple[int, ...],
    truths: list[torch.Tensor],
    beta: float,
) -> tuple[list[float], list[float]]:
    """With every anchor drawn; no object here has several best anchors, which rounding would tell apart."""
    objectness, boxes, drawn = [0.0] * len(strides), [0.0] * len(strides), 0
    for image, truth in enumerate(truths):
        anchors = [
            (level, i, each)
            for level, stride in enumerate(strides)
            for i, each in enumerate(slow_anchors(*logits[level].shape[-2:], stride))
        ]
        flat = torch.tensor([each for _, _, each in anchors], dtype=torch.float64)
        assigned = slow_assign(flat, truth.double(), RPN_ASSIGNMENT) if len(truth) else [BACKGROUND] * len(anchors)
        drawn += max(1, sum(each >= 0 for each in assigned)) + max(1, assigned.count(BACKGROUND))
        for whose, (level, index, anchor) in zip(assigned, anchors):
            cell, ratio = divmod(index, 3)
            row, column = divmod(cell, logits[level].shape[-1])
            logit = float(logits[level][image, ratio, row, column])
            if whose == BACKGROUND:
                objectness[level] += math.log(1 + math.exp(logit))
            if whose >= 0:
                objectness[level] += math.log(1 + math.exp(-logit))
                wanted = encode_boxes(torch.tensor([anchor]), truth[whose : whose + 1], RPN_DEVIATIONS)[0].tolist()
                for value, target in zip(deltas[level][image, ratio * 4 : ratio * 4 + 4, row, column].tolist(), wanted):
                    off = abs(value - target)
                    boxes[level] += off * off / 2 / beta if off < beta else off - beta / 2
    return [each / drawn for each in objectness], [each / drawn for each in boxes]


@pytest.mark.parametrize("beta", [0.0, SMOOTH_L1_BETA])
def test_proposal_losses_agree_with_a_slow_transcription(beta: float) -> None:
    generator, strides = _seeded(5), (8, 16)
    logits = [torch.randn(2, 3, *size, generator=generator) for size in ((6, 8), (3, 4))]
    deltas = [torch.randn(2, 12, *size, generator=generator) * 0.1 for size in ((6, 8), (3, 4))]
    truths = [
        torch.tensor([[5.0, 3.0, 60.0, 62.0], [-27.0, -12.5, 111.0, 96.0], [1.0, 2.0, 9.0, 30.0]]),
        torch.zeros(0, 4),
    ]
    settings = RpnLossSettings(beta=beta, sampling=SampleSettings(total=10**7, positive_share=0.5, add_truths=False))
    objectness, boxes = rpn_losses(logits, deltas, strides, truths, settings, _seeded())
    expected = _slow_rpn(logits, deltas, strides, truths, beta)
    np.testing.assert_allclose(objectness.numpy(), expected[0], rtol=1e-5)
    np.testing.assert_allclose(boxes.numpy(), expected[1], rtol=1e-5)
    assert boxes.sum() > 0


def _samples(positives: torch.Tensor, negatives: torch.Tensor, truths: list[int]) -> Samples:
    return Samples(
        positives=positives,
        negatives=negatives,
        truths=torch.tensor(truths, dtype=torch.int64),
        positive_indices=torch.arange(len(positives)),
        negative_indices=torch.arange(len(negatives)) + len(positives),
    )


def test_region_losses_worked_by_hand() -> None:
    truths = [torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 60.0]]), torch.zeros(0, 4)]
    positives = torch.tensor([[20.0, 20.0, 40.0, 50.0], [0.0, 0.0, 10.0, 9.0]])
    samples = [_samples(positives, random_boxes(2, 0), [1, 0]), _samples(torch.zeros(0, 4), random_boxes(1, 1), [])]
    logits, deltas = torch.randn(5, 2, generator=_seeded(1)), torch.randn(5, 4, generator=_seeded(2))
    classification, regression = roi_losses(logits, deltas, samples, truths)
    costs = [
        math.log(math.exp(yes) + math.exp(no)) - (yes if row < 2 else no)
        for row, (yes, no) in enumerate(logits.tolist())
    ]
    assert float(classification) == pytest.approx(sum(costs) / 5, rel=1e-5)
    off = (deltas[:2] - encode_boxes(positives, truths[0][[1, 0]], ROI_DEVIATIONS)).abs().sum()
    assert float(regression) == pytest.approx(float(off) / 5, rel=1e-5)


def test_region_losses_without_positives() -> None:
    logits, deltas = torch.randn(3, 2, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    samples = [_samples(torch.zeros(0, 4), random_boxes(3, 1), [])]
    classification, regression = roi_losses(logits, deltas, samples, [torch.zeros(0, 4)])
    (classification + regression).backward()
    assert float(regression.detach()) == 0 and float(classification.detach()) > 0
    assert deltas.grad is not None and not deltas.grad.any()
