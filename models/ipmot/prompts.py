"""The prompt of an identity: "A photo of a [X]_1 ... [X]_M person", where the X are learnt (section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from trackmill.models.clip.text_tower import TextTower
from trackmill.schemas.errors import InputError

BEFORE = (49406, 320, 1125, 539, 320)
AFTER = (2533, 49407)
"""Tokens of "A photo of a" with the start token, and of "person" with the end token, as CLIP's tokenizer gives them.

[D]: a decision made here: no full stop at the end, as the paper prints none.
"""


def prompt_rows(text: TextTower, context: Tensor) -> Tensor:
    """Embedded tokens of prompts, without positions.

    Args:
        text: its table of tokens gives the words.
        context: (K, M, D) learnt vectors of K identities, which stand at places 5 to 4 + M.

    Returns:
        (K, 7 + M, D): the last row is the end token, at place 6 + M. What would follow up to 77 cannot reach it through
        a causal attention and is left out.

    Raises:
        InputError: the tower has other tokens than CLIP's, or reads fewer than a prompt has.
    """
    length = len(BEFORE) + context.shape[1] + len(AFTER)
    if text.sizes.vocabulary <= max(AFTER):
        raise InputError(f"CLIP's text tower has {text.sizes.vocabulary} tokens, and prompts need all {max(AFTER) + 1}")
    if text.sizes.context < length:
        raise InputError(
            f"trackbook.vectors: a prompt of {context.shape[1]} learnt vectors has {length} tokens, and CLIP reads "
            f"{text.sizes.context}; take fewer"
        )
    words = text.token_embedding(torch.tensor([*BEFORE, *AFTER], device=context.device)).to(context.dtype)
    before, after = (part.expand(len(context), -1, -1) for part in words.split([len(BEFORE), len(AFTER)]))
    return torch.cat([before, context, after], dim=1)


def encode_prompts(text: TextTower, context: Tensor) -> Tensor:
    """Vectors of prompts, not normalised.

    Args:
        text: CLIP's text tower.
        context: (K, M, D) learnt vectors; gradients reach them.

    Returns:
        (K, E).
    """
    rows = prompt_rows(text, context)
    ends = torch.full((len(rows),), rows.shape[1] - 1, device=rows.device)
    return text.encode_rows(rows, ends)
