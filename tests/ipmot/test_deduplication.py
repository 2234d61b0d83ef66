"""The tracking score (Eq. 6), and what the deduplication module learns, row by row."""

from __future__ import annotations

import pytest
import torch

from trackmill.models.ipmot.deduplication import Deduplication
from trackmill.models.ipmot.losses import deduplication_loss, deduplication_targets, focal_loss, tracking_score
from trackmill.models.ipmot.losses.deduplication import IGNORED


def test_score_is_never_above_its_larger_factor_and_is_the_factor_where_both_are_equal() -> None:
    generator = torch.Generator().manual_seed(0)
    c, d = torch.randn(2, 1000, generator=generator) * 5
    score = tracking_score(c, d)
    factors = torch.stack([c.sigmoid(), d.sigmoid()])
    assert (score <= factors.amax(dim=0) + 1e-6).all()
    assert (score >= factors.amin(dim=0) - 1e-6).all()
    assert torch.allclose(tracking_score(c, c), c.sigmoid(), atol=1e-6)
    assert torch.equal(tracking_score(c, d), tracking_score(d, c))
    assert torch.equal(tracking_score(c), c.sigmoid())


def test_score_is_float32_also_of_halves() -> None:
    assert tracking_score(torch.zeros(2).bfloat16(), torch.zeros(2).bfloat16()).tolist() == [0.5, 0.5]
    assert tracking_score(torch.zeros(2).bfloat16()).dtype == torch.float32
    assert tracking_score(torch.zeros(2).double(), torch.zeros(2).double()).dtype == torch.float64


# Three detect queries, 0 to 2, and two track queries, 3 and 4. `positives`: query -> whether its person is newborn.
@pytest.mark.parametrize(
    ("positives", "zero", "ignore"),
    [
        ({}, (0, 0, 0, 0, 0), (-1, -1, -1, 0, 0)),  # tracks without identity, or whose people are not there
        ({3: False}, (0, 0, 0, 1, 0), (-1, -1, -1, 1, 0)),  # a track on its person
        ({0: True}, (1, 0, 0, 0, 0), (1, -1, -1, 0, 0)),  # a newborn
        ({0: False, 3: False}, (0, 0, 0, 1, 0), (0, -1, -1, 1, 0)),  # a duplicate of a track
        ({2: True, 1: False, 4: False}, (0, 0, 1, 0, 1), (-1, 0, 1, 0, 1)),  # all of it
    ],
)
def test_table_of_targets(positives: dict[int, bool], zero: tuple[int, ...], ignore: tuple[int, ...]) -> None:
    queries = torch.tensor(list(positives), dtype=torch.int64)
    newborn = torch.tensor(list(positives.values()), dtype=torch.bool)
    assert deduplication_targets(5, queries, newborn, 3).tolist() == list(zero)
    assert deduplication_targets(5, queries, newborn, 3, "ignore").tolist() == list(ignore)


def test_loss_is_focal_and_leaves_out_what_is_ignored() -> None:
    confidence = torch.tensor([0.3, -2.0, 1.5])
    whole = deduplication_loss(confidence, torch.tensor([1, 0, 0]))
    assert torch.allclose(whole, focal_loss(confidence, torch.tensor([1.0, 0, 0])))
    part = deduplication_loss(confidence, torch.tensor([1, 0, IGNORED]))
    assert torch.allclose(part, focal_loss(confidence[:2], torch.tensor([1.0, 0])))


def test_an_unknown_background_is_refused() -> None:
    with pytest.raises(ValueError, match="zero or ignore"):
        deduplication_targets(1, torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.bool), 1, "none")


@pytest.mark.parametrize("residual", [True, False])
def test_module_knows_no_order_and_with_a_residual_sees_the_query_itself(residual: bool) -> None:
    torch.manual_seed(0)
    module = Deduplication(16, 2, residual=residual)
    outputs = torch.randn(6, 16)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    confidence = module(outputs)
    assert confidence.shape == (6,)
    assert torch.allclose(module(outputs[order]), confidence[order], atol=1e-6)  # no position embedding
    with torch.no_grad():  # an attention that passes nothing on
        module.attention.out_proj.weight.zero_()
        module.attention.out_proj.bias.zero_()
    assert (module(outputs).std() > 0) == residual


def test_in_the_beginning_nearly_all_queries_are_to_go() -> None:
    torch.manual_seed(0)
    assert Deduplication(16, 2)(torch.randn(20, 16)).sigmoid().mean() < 0.05
