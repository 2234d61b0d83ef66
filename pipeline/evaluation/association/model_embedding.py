"""Embeddings of a model of ours, as the association benchmark asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trackmill.models.masa.variants import VARIANTS
from trackmill.pipeline.evaluation.association.embeddings import Embedding, PixelEmbedding, named_embedding
from trackmill.pipeline.formats.errors import BadTracks

if TYPE_CHECKING:
    import torch

    from trackmill.models.detectors.frame_scaling import FrameScaling


def asked_embedding(spec: str, weights: str | None, seed: int = 0, long_side: int | None = None) -> Embedding:
    """What `--embeddings` and `--weights` mean together.

    Args:
        spec: name of a variant of MASA (`trackmill.models.masa.variants.VARIANTS`), or what `named_embedding` takes.
        weights: for a variant: path or URL of its checkpoint, `imagenet` for masa_lite0, None for random weights.
        seed: of `random` and `identity`.
        long_side: pixels frames are scaled to, for a variant; None: what the variant's benchmark uses. Others see
            frames as they are.

    Raises:
        BadTracks: none of these, or weights beside something that has none.
        ValueError, OSError, ImportError: the model cannot be loaded; the text says why.
    """
    if spec in VARIANTS:
        embedding = variant_embedding(spec, weights, long_side)
        return Embedding(name=f"{spec} ({weights or 'random weights'})", of_pixels=embedding)
    if weights is not None:
        raise BadTracks(f"weights go with a variant of MASA, not with {spec!r}: {', '.join(VARIANTS)}")
    return named_embedding(spec, seed)


def variant_embedding(variant: str, weights: str | None, long_side: int | None = None) -> PixelEmbedding:
    """A function of picture and boxes that asks a variant of MASA, on the GPU if there is one."""
    from trackmill.pipeline.tracking.build import choose_device, load_model, model_scaling
    from trackmill.pipeline.tracking.settings import SizeSettings

    device = choose_device("auto")
    size = SizeSettings(long_side=long_side or 0, short_side=0)
    return network_embedding(load_model(variant, weights, device), model_scaling(variant, size), device)


def network_embedding(network: Any, scaling: FrameScaling, device: torch.device) -> PixelEmbedding:
    """A function of picture and boxes that asks a network, see `trackmill.pipeline.tracking.embedding.EmbeddingModel`.

    Args:
        network: in evaluation mode, on `device`.
        scaling: the size at which it sees pictures.
        device: where it lies.
    """
    from trackmill.pipeline.tracking.embedding import Embedder

    embedder = Embedder(network, scaling, device)

    def of_pixels(image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        return embedder.embed([image], [boxes])[0]

    return of_pixels
