"""Prompts with learnt vectors: where they stand and where the text ends, however many there are."""

from __future__ import annotations

import dataclasses

import pytest

torch = pytest.importorskip("torch")

from tests.clip.towers import SMALL, small_towers  # noqa: E402
from trackmill.models.clip.text_tower import TextTower  # noqa: E402
from trackmill.models.ipmot.prompts import encode_prompts, prompt_rows  # noqa: E402

LETTER = 343
"""The token of "x"."""


@pytest.mark.parametrize("vectors", [1, 2, 4, 8, 70])
def test_learnt_vectors_that_are_letters_give_the_text_with_letters(vectors: int) -> None:
    """All 77 tokens, read by the tower as any text, against the rows up to the end token."""
    text = small_towers().text
    tokens = torch.zeros(1, 77, dtype=torch.int64)
    prompt = [49406, 320, 1125, 539, 320, *[LETTER] * vectors, 2533, 49407]
    tokens[0, : len(prompt)] = torch.tensor(prompt)
    context = text.token_embedding.weight[LETTER].expand(2, vectors, -1)
    assert torch.equal(prompt_rows(text, context)[1], text.token_embedding(tokens)[0, : 7 + vectors])
    whole = text.hidden(text.token_embedding(tokens))[:, 6 + vectors] @ text.text_projection
    assert torch.allclose(encode_prompts(text, context), whole.expand(2, -1), atol=1e-5)
    assert torch.allclose(text(tokens), whole, atol=1e-5)


def test_each_identity_has_its_own_text_and_gradient() -> None:
    text = small_towers().text
    context = torch.randn(3, 4, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    texts = encode_prompts(text, context)
    (gradient,) = torch.autograd.grad(texts[1].sum(), context)
    assert texts.shape == (3, 48) and gradient[1].abs().sum() > 0 and not gradient[[0, 2]].any()


def test_a_tower_that_cannot_read_prompts_says_so() -> None:
    with pytest.raises(ValueError, match=r"trackbook\.vectors: a prompt of 71 learnt vectors has 78 tokens"):
        encode_prompts(small_towers().text, torch.zeros(1, 71, 64))
    with pytest.raises(ValueError, match="has 100 tokens, and prompts need all 49408"):
        encode_prompts(TextTower(dataclasses.replace(SMALL, vocabulary=100)), torch.zeros(1, 4, 64))
