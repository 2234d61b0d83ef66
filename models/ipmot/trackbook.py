"""The TrackBook: for each identity of the training data a few vectors in a prompt, learnt beside the tracker.

Once in an iteration, before the tracker's step, all crops of all ranks pull the vectors of their identities (section
3.2; algorithm 1 of the supplement, lines 2 to 9). Then the texts of the clip's identities are targets of the tracker's
embeddings. Inference needs neither this nor CLIP.

Everything that is learnt lies in buffers of fixed shapes, the state of the optimiser too. So engines, checkpoints and the
loop need not know of it, and a run goes on to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trackmill.models.clip.towers import ClipTowers
from trackmill.models.ipmot.losses.contrastive import (
    Similarity,
    TextToImage,
)

FREE = -1
"""The key of a row that has no identity yet; as an argument, that of a box without a lasting one."""


@dataclass(frozen=True, kw_only=True)
class TrackBookSettings:
    """How the TrackBook learns.

    Args:
        capacity: most identities of the training data; each takes 12 M D bytes x 2, 25 kB by default, in memory and in
            checkpoints.
        vectors: M, learnt vectors of an identity; the paper's best of 2, 4, 6 and 8 (table 4).
        learning_rate: of the first iteration; it falls along a cosine to 0 (section 4.2).
        weight_decay: of AdamW; [D], a decision made here: the paper gives none.
        betas: of AdamW.
        eps: of AdamW.
        similarity: "dot" or "cosine", of E1.
        temperature: of "cosine".
        text_to_image: "log_sum" or "mean_log", of E4.
        chunk: crops, and prompts, that CLIP reads at a time; fewer need less memory and more time.
    """

    capacity: int = 4096
    vectors: int = 4
    learning_rate: float = 3.5e-4
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    similarity: Similarity = "dot"
    temperature: float = 0.01
    text_to_image: TextToImage = "log_sum"
    chunk: int = 64


class TrackBook(nn.Module):
    """Learnt vectors by the key of their identity, with an AdamW that changes present identities alone ([D10]).

    Args:
        settings: how it learns.
        width: D, of a token of CLIP's text tower.
        seed: of the vectors that identities start with. They depend on it and on the key, not on who came first.
        total_iterations: of the whole training, after which the rate is 0; None, until it is set: the rate is constant.
    """

    keys: Tensor
    tokens: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    steps: Tensor
    iteration: Tensor

    def __init__(
        self,
        settings: TrackBookSettings | None = None,
        *,
        width: int = 512,
        seed: int = 0,
        total_iterations: int | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings or TrackBookSettings()
        self.width, self.seed, self.total_iterations = width, seed, total_iterations
        capacity, vectors = self.settings.capacity, self.settings.vectors
        self.register_buffer("keys", torch.full((capacity,), FREE))  # int64, rows filled in order
        for name in ("tokens", "exp_avg", "exp_avg_sq"):
            self.register_buffer(name, torch.zeros(capacity, vectors, width))
        self.register_buffer("steps", torch.zeros(capacity, dtype=torch.int64))
        self.register_buffer("iteration", torch.zeros((), dtype=torch.int64))

    def update(self, towers: ClipTowers, crops: Tensor, keys: Tensor) -> dict[str, Tensor]:
        """One step of the vectors of all identities of which any rank has a crop. Every rank calls it, crops or none.

        Args:
            towers: CLIP, on the device of this.
            crops: (N, 3, 256, 128) of this rank, normalised for CLIP.
            keys: (N,) int64 `identity_key` of each; -1 for those without an identity that lasts, which are not read.

        Returns:
            Scalars, equal on all ranks and without gradients: `i2t` and `t2i`, the losses before the step, and `crops`
            and `identities`, how many there were. Where a loss or gradient is not finite nothing is changed.

        Raises:
            TrackBookFull: there are more identities than rows, on every rank alike; nothing is changed.
        """
        raise NotImplementedError

    def texts(self, towers: ClipTowers, keys: Tensor) -> Tensor:
        """The texts of identities with their present vectors, without gradients.

        Args:
            towers: CLIP, on the device of this.
            keys: (K,) int64. One of which no crop was seen yet has the vectors that it would start with.

        Returns:
            (K, E) float32, not normalised.
        """
        raise NotImplementedError
