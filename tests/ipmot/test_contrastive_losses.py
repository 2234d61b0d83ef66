"""The losses of the TrackBook and of the alignment against plain loops: values and gradients, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

from trackmill.models.ipmot.losses import (  # noqa: E402
    image_to_text,
    image_to_text_cross_entropy,
    similarity,
    text_to_image,
    triplet,
)

Tensor = torch.Tensor
ALL = [similarity, image_to_text, text_to_image, triplet, image_to_text_cross_entropy]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def loop_i2t(scores: Tensor, labels: list[int]) -> Tensor:
    """Eq. 2, crop by crop."""
    losses = []
    for crop, label in enumerate(labels):
        below = sum(scores[crop, text].exp() for text in range(scores.shape[1]))
        losses.append(-(scores[crop, label].exp() / below).log())
    return torch.stack(losses).mean()


def loop_t2i(scores: Tensor, labels: list[int], mean_log: bool) -> Tensor:
    """Eq. 4, identity by identity."""
    losses = []
    for text in range(scores.shape[1]):
        positives = [crop for crop, label in enumerate(labels) if label == text]
        below = sum(scores[crop, text].exp() for crop in range(len(labels)))
        if positives and mean_log:
            losses.append(-sum((scores[crop, text].exp() / below).log() for crop in positives) / len(positives))
        elif positives:
            above = sum(scores[crop, text].exp() for crop in positives)
            losses.append(-(above / below).log() / len(positives))
    return torch.stack(losses).mean()


def loop_i2tce(scores: Tensor, labels: list[int], smoothing: float) -> Tensor:
    """Eq. 10, entry by entry."""
    losses, count = [], scores.shape[1]
    for entry, label in enumerate(labels):
        below = sum(scores[entry, text].exp() for text in range(count))
        for text in range(count):
            target = (1 - smoothing) * (text == label) + smoothing / count
            losses.append(-target * (scores[entry, text].exp() / below).log())
    return torch.stack(losses).sum() / len(labels)


def loop_triplet(embeddings: Tensor, identities: list[int], margin: float) -> Tensor:
    """Eq. 9, anchor by anchor."""
    losses = []
    for anchor, identity in enumerate(identities):
        apart = [(embeddings[anchor] - each).square().sum().sqrt() for each in embeddings.unbind()]
        same = [apart[i] for i, other in enumerate(identities) if other == identity and i != anchor]
        others = [apart[i] for i, other in enumerate(identities) if other != identity]
        if same and others:
            losses.append((max(same) - min(others) + margin).clamp(min=0))
    return torch.stack(losses).mean()


LABELS = [2, 0, 2, 2, 0, 4]
"""Of six crops; nobody has 1 and 3."""


@pytest.mark.parametrize(
    ("ours", "loop"),
    [
        (image_to_text, loop_i2t),
        (text_to_image, lambda s, labels: loop_t2i(s, labels, mean_log=False)),
        (lambda s, labels: text_to_image(s, labels, "mean_log"), lambda s, labels: loop_t2i(s, labels, mean_log=True)),
        (image_to_text_cross_entropy, lambda s, labels: loop_i2tce(s, labels, 0.1)),
        (lambda s, labels: image_to_text_cross_entropy(s, labels, 0.0), loop_i2t),
    ],
    ids=["Eq. 2", "Eq. 4 as printed", "Eq. 4 mean_log", "Eq. 10", "Eq. 10 without smoothing is Eq. 2"],
)
def test_against_a_double_loop(ours: Callable[..., Tensor], loop: Callable[..., Tensor]) -> None:
    scores = drawn(len(LABELS), 5)
    own, expected = ours(scores, torch.tensor(LABELS)), loop(scores, LABELS)
    assert own.dtype == torch.float64 and torch.allclose(own, expected, atol=1e-12)
    (gradient,), (loops,) = torch.autograd.grad(own, scores), torch.autograd.grad(expected, scores)
    assert torch.allclose(gradient, loops, atol=1e-12)


def test_the_sum_inside_the_logarithm_is_another_loss_for_several_pictures_alone() -> None:
    scores, several, single = drawn(4, 4), torch.tensor([0, 0, 1, 2]), torch.tensor([3, 0, 1, 2])
    assert torch.allclose(text_to_image(scores, single), text_to_image(scores, single, "mean_log"))
    assert not torch.allclose(text_to_image(scores, several), text_to_image(scores, several, "mean_log"), atol=0.01)


def test_similarity_is_a_dot_product_or_a_cosine() -> None:
    images, texts = drawn(3, 7), drawn(2, 7, seed=1)
    assert torch.allclose(similarity(images, texts), torch.stack([(texts * each).sum(1) for each in images]))
    cosine = torch.cosine_similarity(images[:, None], texts[None], dim=-1)
    assert torch.allclose(similarity(images, texts, "cosine", 0.07), cosine / 0.07)


@pytest.mark.parametrize("count", [3, 4, 30])
def test_triplet_against_a_loop(count: int) -> None:
    embeddings = drawn(count, 5, seed=count)
    identities = [0, 0, 1, 2, *(each % 4 for each in range(count))][:count]  # somebody is there once
    own, expected = triplet(embeddings, torch.tensor(identities)), loop_triplet(embeddings, identities, 0.3)
    assert torch.allclose(own, expected, atol=1e-12) and own > 0
    (gradient,), (loops,) = torch.autograd.grad(own, embeddings), torch.autograd.grad(expected, embeddings)
    assert torch.allclose(gradient, loops, atol=1e-12)


def test_triplet_takes_the_hardest_and_keeps_a_margin() -> None:
    places = torch.tensor([[0.0], [1.0], [3.0], [3.1], [50.0]])
    identities = torch.tensor([0, 0, 0, 1, 2])
    # Farthest of its own and nearest of the others: 3 - 3.1, 2 - 2.1 and 3 - 0.1, each + 0.3; 1 and 2 have no positive.
    assert float(triplet(places, identities)) == pytest.approx((0.2 + 0.2 + 3.2) / 3, abs=1e-5)
    assert float(triplet(places, identities, margin=0.0)) == pytest.approx(2.9 / 3, abs=1e-5)
    assert float(triplet(places[[0, 1, 4]], identities[[0, 1, 4]])) == 0  # others are far enough


def test_equal_embeddings_have_a_gradient() -> None:
    embeddings = torch.zeros(4, 3, requires_grad=True)
    loss = triplet(embeddings, torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(0.3) and embeddings.grad is not None
    assert bool((embeddings.grad == 0).all())


@pytest.mark.parametrize(
    "identities", [[], [3], [3, 3, 3], [1, 2, 3]], ids=["empty", "one", "one identity", "no pairs"]
)
def test_without_an_anchor_the_triplet_loss_is_zero(identities: list[int]) -> None:
    embeddings = torch.randn(len(identities), 8, requires_grad=True)
    loss = triplet(embeddings, torch.tensor(identities, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0 and embeddings.grad is not None and not embeddings.grad.any()


@pytest.mark.parametrize("loss", [image_to_text, text_to_image, image_to_text_cross_entropy])
@pytest.mark.parametrize("texts", [0, 3])
def test_without_pictures_losses_are_zero(loss: Callable[..., Tensor], texts: int) -> None:
    scores = torch.zeros(0, texts, requires_grad=True)
    value = loss(scores, torch.zeros(0, dtype=torch.int64))
    value.backward()
    assert float(value.detach()) == 0 and scores.grad is not None


@pytest.mark.parametrize("form", ["log_sum", "mean_log"])
def test_dot_products_of_hundreds_stay_finite(form: str) -> None:
    vectors = (torch.randn(6, 512, generator=torch.Generator().manual_seed(0)) * 8).requires_grad_()
    labels = torch.tensor([0, 0, 1, 2, 1, 0])
    scores = similarity(vectors, vectors[[2, 0, 1, 5]].detach())  # the last text has no picture
    assert float(scores.detach().abs().max()) > 1e4
    total = image_to_text(scores, labels) + text_to_image(scores, labels, form) + triplet(vectors, labels)  # type: ignore[arg-type]
    (total + image_to_text_cross_entropy(scores, labels)).backward()
    assert math.isfinite(float(total.detach())) and vectors.grad is not None and bool(vectors.grad.isfinite().all())


def test_under_autocast_everything_is_float32() -> None:
    vectors, labels = torch.randn(6, 64), torch.tensor([0, 0, 1, 2, 1, 0])
    scores = similarity(vectors, vectors[:3])
    expected = [scores, image_to_text(scores, labels), text_to_image(scores, labels), triplet(vectors, labels)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = similarity(vectors, vectors[:3])
        own = [scores, image_to_text(scores, labels), text_to_image(scores, labels), triplet(vectors, labels)]
        low = triplet(vectors.bfloat16(), labels)
    assert all(torch.equal(one, other) for one, other in zip(own, expected, strict=True))
    assert low.dtype == torch.float32


def test_each_says_its_equation() -> None:
    for each, number in zip(ALL, (1, 2, 4, 9, 10), strict=True):
        assert f"(Eq. {number})" in (each.__doc__ or "")


def test_other_forms_are_refused() -> None:
    with pytest.raises(ValueError, match="form must be dot or cosine, not 'cos'"):
        similarity(torch.ones(1, 2), torch.ones(1, 2), "cos")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="form must be log_sum or mean_log, not 'mean'"):
        text_to_image(torch.ones(1, 2), torch.tensor([0]), "mean")  # type: ignore[arg-type]
