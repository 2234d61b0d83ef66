"""The text tower: tokens to one vector a text, in the space that CLIP's images have too."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trackmill.models.clip.transformer import HEAD_WIDTH, Transformer


@dataclass(frozen=True, kw_only=True)
class TextTowerSizes:
    """Sizes of a text tower; the defaults are those of ViT-B/32 and ViT-B/16.

    Args:
        vocabulary: number of tokens.
        context: longest text, in tokens.
        width: D, of a token.
        layers: residual blocks.
        embedding: E, length of the vector of a text.
    """

    vocabulary: int = 49408
    context: int = 77
    width: int = 512
    layers: int = 12
    embedding: int = 512

    @property
    def heads(self) -> int:
        """Of each attention."""
        return max(self.width // HEAD_WIDTH, 1)


class TextTower(nn.Module):
    """Tokens, positions, causal transformer, norm, and a projection of the place where the text ends.

    Names of tensors are OpenAI's. Fresh weights are for tests; nobody trains this here.
    """

    def __init__(self, sizes: TextTowerSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.token_embedding = nn.Embedding(sizes.vocabulary, sizes.width)
        self.positional_embedding = nn.Parameter(torch.randn(sizes.context, sizes.width) * 0.01)
        self.transformer = Transformer(sizes.width, sizes.layers, sizes.heads)
        self.ln_final = nn.LayerNorm(sizes.width)
        self.text_projection = nn.Parameter(torch.randn(sizes.width, sizes.embedding) * sizes.width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Vectors of texts, not normalised.

        Args:
            tokens: (N, T) whole numbers as `trackmill.models.clip.tokenize` gives them, T at most `sizes.context`. A
                text ends at its largest number, since the end token is the last of the vocabulary.

        Returns:
            (N, E) float32.
        """
        ends = tokens.argmax(dim=-1)
        # Nothing behind the end reaches it through a causal attention: names are ten tokens of 77.
        used = int(ends.max()) + 1 if len(ends) else 1
        return self.encode_rows(self.token_embedding(tokens[:, :used].long()), ends)

    def encode_rows(self, rows: Tensor, ends: Tensor) -> Tensor:
        """Vectors of texts whose tokens are embedded: for prompts with learned vectors among them.

        Args:
            rows: (N, T, D) embedded tokens, without positions.
            ends: (N,) place of the end token in each.

        Returns:
            (N, E), not normalised.
        """
        hidden = self.hidden(rows)
        at_end = hidden[torch.arange(len(hidden), device=hidden.device), ends.to(hidden.device)]
        return at_end @ self.text_projection

    def hidden(self, rows: Tensor) -> Tensor:
        """(N, T, D) embedded tokens -> (N, T, D) after the last norm."""
        values = rows + self.positional_embedding[: rows.shape[1]]
        out: Tensor = self.ln_final(self.transformer(values, causal=True))
        return out
