"""The TrackBook: for each identity of the training data a few vectors in a prompt, learnt beside the tracker.

Once in an iteration, before the tracker's step, all crops of all ranks pull the vectors of their identities (section
3.2; algorithm 1 of the supplement, lines 2 to 9). Then the texts of the clip's identities are targets of the tracker's
embeddings. Inference needs neither this nor CLIP.

Everything that is learnt lies in buffers of fixed shapes, the state of its optimiser too. So engines, checkpoints and
the loop need not know of it, and a run goes on to the bit.

Legend: `N` crops, `K` identities, `M` learnt vectors of an identity, `D` width of a token, `E` length of a text.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trackmill.models.clip.text_tower import TextTower
from trackmill.models.clip.towers import ClipTowers
from trackmill.models.ipmot.losses.contrastive import (
    Similarity,
    TextToImage,
    image_to_text,
    similarity,
    text_to_image,
)
from trackmill.models.ipmot.prompts import encode_prompts
from trackmill.models.losses.across_ranks import gather_counts, gather_rows, world_size
from trackmill.schemas.errors import InputError
from trackmill.schemas.keys import NO_KEY

FREE = NO_KEY
"""The key of a row without an identity; as an argument, that of a crop whose identity is not to be learnt."""


class TrackBookFull(InputError):
    """The training data have more identities than `trackbook.capacity` says."""


@dataclass(frozen=True, kw_only=True)
class TrackBookSettings:
    """How the TrackBook learns.

    Args:
        capacity: most identities of the training data. Each takes 12 M D bytes, 25 kB by default, in memory and in
            checkpoints; all rows are there from the beginning.
        vectors: M; the paper's best of 2, 4, 6 and 8 (table 4).
        initial_std: of the normal distribution that learnt vectors start with. [D]: a decision made here.
        learning_rate: of the first iteration; it falls along a cosine to 0 (section 4.2).
        weight_decay: of AdamW. [D]: a decision made here; the paper gives none.
        betas: of AdamW.
        eps: of AdamW.
        similarity: "dot" or "cosine", of Eq. 1.
        temperature: of "cosine".
        text_to_image: "log_sum" or "mean_log", of Eq. 4.
        chunk: crops, and prompts, that CLIP reads at a time. Fewer need less memory and more time.
    """

    capacity: int = 4096
    vectors: int = 4
    initial_std: float = 0.02
    learning_rate: float = 3.5e-4
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    similarity: Similarity = "dot"
    temperature: float = 0.01
    text_to_image: TextToImage = "log_sum"
    chunk: int = 64


class TrackBook(nn.Module):
    """Learnt vectors by the key of their identity, with an AdamW that changes those of present identities alone.

    [D]: a decision made here: each identity has its own moments and its own number of steps. An AdamW over the whole
    table would move and decay identities that nobody saw.

    Args:
        settings: how it learns.
        width: D, that of CLIP's text tower.
        seed: of the vectors that identities start with. They depend on it and on the key, not on who came first.
        total_iterations: of the whole training, after which the rate is 0. None: the rate is constant. It may be set
            later.
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
        self.seed, self.total_iterations = seed, total_iterations
        capacity, vectors = self.settings.capacity, self.settings.vectors
        self.register_buffer("keys", torch.full((capacity,), FREE))  # int64; rows are taken in order
        for name in ("tokens", "exp_avg", "exp_avg_sq"):
            self.register_buffer(name, torch.zeros(capacity, vectors, width))
        self.register_buffer("steps", torch.zeros(capacity, dtype=torch.int64))
        self.register_buffer("iteration", torch.zeros((), dtype=torch.int64))

    @property
    def learning_rate(self) -> float:
        """Of the next update."""
        rate = self.settings.learning_rate
        if self.total_iterations is None:
            return rate
        done = min(int(self.iteration) / max(self.total_iterations, 1), 1.0)
        return rate * 0.5 * (1 + math.cos(math.pi * done))

    def update(self, towers: ClipTowers, crops: Tensor, keys: Tensor) -> dict[str, Tensor]:
        """One step of the vectors of every identity of which some rank has a crop. Every rank calls it, crops or none.

        Image vectors and keys are gathered over ranks. Each rank computes the texts, and the gradients, of its share of
        the identities, and gathers those too, so that all make the same step.

        Args:
            towers: CLIP, on the device of this.
            crops: (N, 3, H, W) of this rank, normalised for CLIP, as of `cut_crops`.
            keys: (N,) int64, `identity_key` of each; those of `FREE` are not read.

        Returns:
            Scalars without gradients, equal on all ranks: `i2t` and `t2i`, the losses before the step, and `crops` and
            `identities`, how many there were. If a loss or a gradient is not finite nothing is changed.

        Raises:
            ValueError: as many keys as crops are needed.
            TrackBookFull: there are more identities than rows; on every rank alike, and nothing is changed.
        """
        if len(crops) != len(keys):
            raise ValueError(f"{len(keys)} keys for {len(crops)} crops")
        with torch.autocast(crops.device.type, enabled=False), torch.enable_grad():
            return self._update(towers, crops, keys.to(crops.device))

    def texts(self, towers: ClipTowers, keys: Tensor) -> Tensor:
        """The texts of identities by their present vectors: what the tracker's embeddings are aligned with.

        Args:
            towers: CLIP, on the device of this.
            keys: (K,) int64, none of them `FREE`. One of which no crop was seen has the vectors it would start with.

        Returns:
            (K, E) float32 without gradients, not normalised.

        Raises:
            ValueError: a key is `FREE`, so there is no identity to have a text.
        """
        keys = keys.to(self.keys.device)
        if bool((keys < 0).any()):
            raise ValueError("only identities with a key have a text")
        with torch.no_grad(), torch.autocast(self.keys.device.type, enabled=False):
            rows, known = self._find(keys)
            return self._encode(towers.text, self._vectors(keys, rows, known))

    def _update(self, towers: ClipTowers, crops: Tensor, keys: Tensor) -> dict[str, Tensor]:
        images, keys = self._gather(towers, crops, keys)
        present, labels = keys.unique(return_inverse=True)  # ascending, so new ones get their rows in the same order
        numbers = {"crops": images.new_tensor(len(images)), "identities": images.new_tensor(len(present))}
        if not len(present):
            self.iteration += 1
            return {"i2t": images.new_zeros(()), "t2i": images.new_zeros(()), **numbers}

        rows, known = self._find(present)
        rows = self._with_free_rows(rows, known)
        vectors = self._vectors(present, rows, known)  # (K, M, D)
        counts = [len(share) for share in torch.arange(len(present)).tensor_split(world_size())]
        rank = dist.get_rank() if len(counts) > 1 else 0
        share = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
        own = vectors[share].clone().requires_grad_()
        own_texts = self._encode(towers.text, own)
        texts = gather_rows(own_texts.detach(), counts).requires_grad_()
        scores = similarity(images, texts, self.settings.similarity, self.settings.temperature)
        i2t, t2i = image_to_text(scores, labels), text_to_image(scores, labels, self.settings.text_to_image)
        (by_text,) = torch.autograd.grad(i2t + t2i, texts)
        (by_vector,) = torch.autograd.grad(own_texts, own, by_text[share]) if len(own) else (torch.zeros_like(own),)
        gradients = gather_rows(by_vector, counts)

        if bool((i2t + t2i).isfinite() & gradients.isfinite().all()):
            self._step(present, rows, known, vectors, gradients)
        return {"i2t": i2t.detach(), "t2i": t2i.detach(), **numbers}

    @torch.no_grad()
    def _gather(self, towers: ClipTowers, crops: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """(N, E) image vectors and (N,) keys of all ranks."""
        learnt = keys >= 0
        crops, keys = crops[learnt].float(), keys[learnt]
        images = crops.new_zeros(0, towers.sizes.image.embedding)
        if len(crops):
            images = torch.cat([towers.image(part) for part in crops.split(self.settings.chunk)])
        counts = gather_counts(len(keys), keys.device)
        return gather_rows(images, counts), gather_rows(keys, counts)

    def _find(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """(K,) rows of keys, and (K,) whether they have one; the row of one without means nothing."""
        ordered, order = self.keys.sort()
        places = torch.searchsorted(ordered, keys).clamp(max=len(ordered) - 1)
        return order[places], ordered[places] == keys

    def _with_free_rows(self, rows: Tensor, known: Tensor) -> Tensor:
        """`rows` with the next free ones for identities that have none."""
        used, new = int((self.keys != FREE).sum()), int((~known).sum())
        if used + new > len(self.keys):
            raise TrackBookFull(
                f"trackbook.capacity: the training data have more than {len(self.keys)} identities, {used + new} so "
                "far: start again with at least as many as there are; a checkpoint has the capacity of its run"
            )
        rows = rows.clone()
        rows[~known] = torch.arange(used, used + new, device=rows.device)
        return rows

    def _vectors(self, keys: Tensor, rows: Tensor, known: Tensor) -> Tensor:
        """(K, M, D): those of the table, and of keys that are not in it, those that they start with."""
        vectors = self.tokens[rows]
        unknown = keys[~known].tolist()
        if unknown:
            vectors[~known] = torch.stack([self._initial(key) for key in unknown]).to(vectors.device)
        return vectors

    def _initial(self, key: int) -> Tensor:
        """(M, D) on the CPU, so that every device starts alike."""
        digest = hashlib.blake2b(f"{self.seed} {key}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
        return torch.randn(self.tokens.shape[1:], generator=generator) * self.settings.initial_std

    def _encode(self, text: TextTower, vectors: Tensor) -> Tensor:
        """(K, M, D) -> (K, E). Of more than a chunk, each is computed again on the way back rather than kept."""
        parts = vectors.split(self.settings.chunk)
        if len(parts) == 1 or not vectors.requires_grad:
            return torch.cat([encode_prompts(text, part) for part in parts])
        return torch.cat(
            [checkpoint(encode_prompts, text, part, use_reentrant=False, preserve_rng_state=False) for part in parts]
        )

    @torch.no_grad()
    def _step(self, keys: Tensor, rows: Tensor, known: Tensor, vectors: Tensor, gradients: Tensor) -> None:
        """AdamW of these rows, as torch computes it (`torch.optim.AdamW`)."""
        settings, rate = self.settings, self.learning_rate
        (beta1, beta2), steps = settings.betas, self.steps[rows] + 1
        first = self.exp_avg[rows].lerp(gradients, 1 - beta1)
        second = self.exp_avg_sq[rows].mul(beta2).addcmul(gradients, gradients, value=1 - beta2)
        # With Python's numbers: 1 - 0.999 in float32 would lose four digits.
        done = steps.tolist()
        size = vectors.new_tensor([rate / (1 - beta1**each) for each in done])[:, None, None]
        root = vectors.new_tensor([math.sqrt(1 - beta2**each) for each in done])[:, None, None]
        moved = vectors * (1 - rate * settings.weight_decay) - size * first / (second.sqrt() / root + settings.eps)
        self.keys[rows] = keys
        self.tokens[rows], self.exp_avg[rows], self.exp_avg_sq[rows], self.steps[rows] = moved, first, second, steps
        self.iteration += 1
