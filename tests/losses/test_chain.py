"""The chain loss and its rivals against plain loops, on clips in which identities are missing and come back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.losses.slow_losses import Clip, chain_loops, infonce_terms, supcon_loops
from trackmill.models.losses.chain import chain_contrast, chain_contrastive_loss
from trackmill.models.losses.objects import clip_objects
from trackmill.models.losses.rivals import (
    LOSSES,
    broken_chain_loss,
    global_infonce_loss,
    global_supcon_loss,
    pairwise_loss,
)

TAU = 0.2
DIMENSIONS = 5


def random_clip(seed: int, frames: int = 7, identities: int = 4, missing: float = 0.35, double: bool = True) -> Clip:
    """Objects that are missing in some frames, negatives in some frames only, rows in any order."""
    generator = torch.Generator().manual_seed(seed)
    there = torch.rand(frames, identities, generator=generator) > missing
    frame, identity = torch.nonzero(there, as_tuple=True)
    order = torch.randperm(len(frame), generator=generator)
    frame, identity = frame[order], identity[order] * 7 - 3  # any integers, also below 0
    negative_frame = torch.randint(frames, (6,), generator=generator)
    negative_frame = negative_frame[negative_frame % 3 != 1]
    dtype = torch.float64 if double else torch.float32
    embeddings = F.normalize(torch.randn(len(frame), DIMENSIONS, generator=generator, dtype=dtype), dim=1)
    negatives = F.normalize(torch.randn(len(negative_frame), DIMENSIONS, generator=generator, dtype=dtype), dim=1)
    return embeddings.requires_grad_(), frame, identity, negatives.requires_grad_(), negative_frame


def batch_of(clips: list[Clip]) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """Several clips as the arguments of one call."""
    rows = tuple(torch.cat([clip[column] for clip in clips]) for column in range(5))
    numbers = torch.arange(len(clips))
    clip = numbers.repeat_interleave(torch.tensor([len(each[1]) for each in clips]))
    negative_clip = numbers.repeat_interleave(torch.tensor([len(each[4]) for each in clips]))
    return rows, {"clip": clip, "negative_clip": negative_clip, "num_clips": len(clips)}


def gradients(loss: Tensor, clips: list[Clip]) -> list[Tensor]:
    leaves = [clip[column] for clip in clips for column in (0, 3)]
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [torch.zeros_like(leaf) if each is None else each for leaf, each in zip(leaves, found, strict=True)]


@pytest.mark.parametrize("seed", range(12))
def test_the_chain_loss_is_the_double_loop_of_the_equations(seed: int) -> None:
    clip = random_clip(seed, frames=2 + seed % 7, missing=0.1 * (seed % 6))
    expected, _ = chain_loops(clip, TAU)
    loss = chain_contrastive_loss(*clip, temperature=TAU)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    for mine, other in zip(gradients(loss, [clip]), gradients(expected, [clip]), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)


PAIRS = {pairwise_loss: [(0, 1)], broken_chain_loss: [(0, 1), (2, 3), (4, 5)]}


@pytest.mark.parametrize("rival", PAIRS)
@pytest.mark.parametrize("seed", range(4))
def test_rivals_that_cut_the_chain(rival: Any, seed: int) -> None:
    clip = random_clip(seed)
    expected, _ = chain_loops(clip, TAU, PAIRS[rival])
    torch.testing.assert_close(rival(*clip, temperature=TAU), expected, rtol=1e-10, atol=1e-12)


def test_a_batch_is_the_mean_over_its_clips_and_one_without_a_pair_counts_as_0() -> None:
    clips = [random_clip(seed, frames=3 + seed) for seed in range(3)]
    clips += [random_clip(9, frames=1), random_clip(9, missing=1.0)]
    rows, which = batch_of(clips)
    loss = chain_contrastive_loss(*rows, temperature=TAU, **which)
    each = torch.stack([chain_loops(clip, TAU)[0] for clip in clips])
    assert (each > 0).tolist() == [True, True, True, False, False]
    torch.testing.assert_close(loss, each.mean(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_global_supcon_is_the_loop_over_the_whole_batch(seed: int) -> None:
    clips = [random_clip(10 * seed + each, frames=4) for each in range(3)]
    rows, which = batch_of(clips)
    loss, expected = global_supcon_loss(*rows, temperature=TAU, **which), supcon_loops(clips, TAU)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    for mine, other in zip(gradients(loss, clips), gradients(expected, clips), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)


def test_global_infonce_draws_one_other_frame_of_the_identity() -> None:
    clip = random_clip(3, missing=0.1)
    terms = infonce_terms([clip], TAU)
    losses = [
        float(global_infonce_loss(*clip, temperature=TAU, generator=torch.Generator().manual_seed(seed)).detach())
        for seed in range(300)
    ]
    assert len({round(loss, 9) for loss in losses[:5]}) == 5, "each generator draws others"
    expected = torch.stack([torch.stack(each).mean() for each in terms]).mean().detach()
    assert sum(losses) / len(losses) == pytest.approx(float(expected), rel=0.01), "each positive is as likely"
    lowest = torch.stack([torch.stack(each).min() for each in terms]).mean().detach()
    highest = torch.stack([torch.stack(each).max() for each in terms]).mean().detach()
    assert float(lowest) <= min(losses) <= max(losses) <= float(highest)


def test_global_infonce_with_two_frames_has_nothing_to_draw() -> None:
    clips = [random_clip(each, frames=2, missing=0.0) for each in range(2)]
    rows, which = batch_of(clips)
    expected = torch.stack([term for terms in infonce_terms(clips, TAU) for term in terms]).mean()
    torch.testing.assert_close(global_infonce_loss(*rows, temperature=TAU, **which), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", LOSSES)
def test_gradients_are_those_of_the_values(kind: str) -> None:
    clip = random_clip(1, frames=4, identities=3)

    def loss(embeddings: Tensor, negatives: Tensor) -> Tensor:
        objects = clip_objects(embeddings, clip[1], clip[2], negatives, clip[4])
        return LOSSES[kind](objects, TAU, torch.Generator().manual_seed(0)).loss

    assert torch.autograd.gradcheck(loss, (clip[0], clip[3]))


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize(
    ("frames", "missing"),
    [
        (1, 0.0),  # one frame
        (5, 1.0),  # no box at all, some negatives
    ],
)
def test_without_a_pair_loss_and_gradients_are_0(kind: str, frames: int, missing: float) -> None:
    clip = random_clip(0, frames=frames, missing=missing)
    contrast = LOSSES[kind](clip_objects(*clip), TAU, torch.Generator())
    assert contrast.loss.requires_grad
    assert contrast.loss.detach() == 0
    contrast.loss.backward()
    assert all(leaf.grad is None or not leaf.grad.any() for leaf in (clip[0], clip[3]))
    assert {float(value) for value in contrast.statistics.values()} == {0.0}


def test_neither_frames_further_apart_nor_the_way_back_make_a_pair() -> None:
    rows = torch.eye(3, requires_grad=True)
    gone = chain_contrastive_loss(rows, torch.tensor([0, 2, 2]), torch.tensor([5, 5, 6]), rows[:0], torch.zeros(0))
    assert gone.detach() == 0
    # One direction: a negative of frame 0 changes nothing.
    frame, identity = torch.tensor([0, 1]), torch.tensor([5, 5])
    alone = chain_contrastive_loss(rows[:2], frame, identity, rows[:0], torch.zeros(0))
    before = chain_contrastive_loss(rows[:2], frame, identity, rows[2:], torch.tensor([0]))
    after = chain_contrastive_loss(rows[:2], frame, identity, rows[2:], torch.tensor([1]))
    assert alone.detach() == before.detach() == 0
    assert float(after.detach()) == pytest.approx(float(torch.tensor(2.0).log()))


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(kind: str, dtype: torch.dtype) -> None:
    embeddings, frame, identity, negatives, negative_frame = random_clip(2, double=False)
    half, half_negatives = embeddings.detach().to(dtype).requires_grad_(), negatives.detach().to(dtype)

    def loss(rows: Tensor, others: Tensor) -> Tensor:
        objects = clip_objects(rows, frame, identity, others, negative_frame)
        return LOSSES[kind](objects, 0.07, torch.Generator().manual_seed(0)).loss

    expected = loss(half.float(), half_negatives.float())
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(half, half_negatives)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    found.backward()
    assert half.grad is not None
    assert half.grad.isfinite().all()


def test_statistics_of_a_clip_that_can_be_counted_by_hand() -> None:
    # Identity 1 in frames 0, 1, 2 and 4; identity 2 in 1 and 2; identity 3 in 4 only.
    frame, identity = torch.tensor([0, 1, 2, 4, 1, 2, 4]), torch.tensor([1, 1, 1, 1, 2, 2, 3])
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    embeddings = torch.stack([x, x, x, x, y, y, y])
    negatives = torch.stack([-x, y])  # in frame 1, so that the first anchor has three negatives
    objects = clip_objects(embeddings, frame, identity, negatives, torch.tensor([1, 1]))
    found = chain_contrast(objects, 1.0).statistics
    assert float(found["positives"]) == 3
    assert float(found["chain_length"]) == 2.5, "frames 0-2 and 1-2"
    assert float(found["chain_length_max"]) == 3
    assert float(found["similarity_gap"]) == 1.0
    # Negatives of the first anchor: y, y at weight 1, -x at weight exp(-1). The other two have one each.
    weights = torch.tensor([0.0, 0.0, -1.0]).softmax(0)
    assert float(found["effective_negatives"]) == pytest.approx((1 / float(weights.square().sum()) + 2) / 3)
    broken = LOSSES["broken_chain"](objects, 1.0, None)
    assert float(broken.statistics["positives"]) == 1
    assert float(broken.statistics["chain_length_max"]) == 2
    everywhere = LOSSES["global_supcon"](objects, 1.0, None)
    assert float(everywhere.statistics["positives"]) == 4 * 3 + 2
    assert float(everywhere.statistics["chain_length_max"]) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({1: torch.tensor([3])}, r"frame should be \(2,\), got \(1,\)"),
        ({1: torch.tensor([0.0, 1.0])}, "frame should hold integers"),
        ({3: torch.zeros(1, 7)}, r"should be \(N, D\) and \(M, D\)"),
        ({4: torch.tensor([1, 1])}, r"negative_frame should be \(1,\)"),
        ({1: torch.tensor([1, 1])}, "identity 4 has several boxes in frame 1 of clip 0"),
        ({5: 0.0}, "temperature = 0.0"),
    ],
)
def test_what_is_wrong_is_said(change: dict[int, Any], message: str) -> None:
    arguments: list[Any] = [
        torch.eye(2), torch.tensor([0, 1]), torch.tensor([4, 4]), torch.ones(1, 2), torch.tensor([1]), 0.07,
    ]  # fmt: skip
    for place, value in change.items():
        arguments[place] = value
    with pytest.raises(ValueError, match=message):
        chain_contrastive_loss(*arguments)
