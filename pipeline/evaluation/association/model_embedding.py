"""Runs a model, built in or the user's own, as an embedding for the association benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trackmill.models.device import choose_device
from trackmill.models.outside import is_outside
from trackmill.models.registry import MODELS
from trackmill.pipeline.evaluation.association.embeddings import Embedding, PixelEmbedding, named_embedding
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.weights import build_model, choose_model

if TYPE_CHECKING:
    import torch

    from trackmill.models.detectors.frame_scaling import FrameScaling


def asked_embedding(spec: str, weights: str | None, seed: int = 0, long_side: int | None = None) -> Embedding:
    """The embedding that `--embeddings` and `--weights` select.

    Args:
        spec: name of a model (`trackmill.models.registry.MODELS`), or what `named_embedding` takes. With weights,
            `my_package.my_module:Class` is a model of your own.
        weights: for a model: path or URL of its checkpoint, `imagenet`, None for random weights.
        seed: seed of `random` and `identity`.
        long_side: for a model: pixels to scale the longer side of frames to; None: what its benchmark uses. Other
            embeddings get frames unscaled.

    Raises:
        BadTracks: `spec` is none of these, or has no weights to load, or is an end-to-end tracker.
        ValueError, OSError, ImportError: the model cannot be loaded; the message says why.
    """
    if spec in MODELS or (weights is not None and is_outside(spec)):
        return model_embedding(spec, weights, long_side)
    if weights is not None:
        raise BadTracks(f"weights go with a model, not with {spec!r}: {', '.join(MODELS)}")
    return named_embedding(spec, seed)


def model_embedding(name: str, weights: str | None, long_side: int | None = None) -> Embedding:
    """A model as an embedding, on the GPU if there is one; one that remembers earlier frames gets them in order."""
    device = choose_device("auto")
    choice = choose_model(name)[0]
    if choice.entry.end_to_end:
        raise BadTracks(_no_embedding(name))
    longer, shorter = choice.frame_size()
    network = build_model(name, weights, device)
    if not hasattr(network, "embedder") and not callable(getattr(network, "embed", None)):
        raise BadTracks(_no_embedding(name))
    shown = f"{name} ({weights or 'random weights'})"

    from trackmill.models.detectors.frame_scaling import FrameScaling

    if hasattr(network, "embedder"):
        scaling = FrameScaling(long_side=long_side, short_side=long_side) if long_side else None
        return remembering_embedding(network, shown, scaling)
    scaling = FrameScaling(long_side=long_side or longer, short_side=long_side or shorter)
    return Embedding(name=shown, of_pixels=network_embedding(network, scaling, device))


def _no_embedding(name: str) -> str:
    return (
        f"{name} has no embed(images, boxes): an end-to-end tracker describes no boxes of others. Track with it "
        f"(trackmill track --model {name}), and score what it writes with the benchmark of the data (--benchmark mot17)"
    )


def remembering_embedding(network: Any, name: str, scaling: FrameScaling | None = None) -> Embedding:
    """A network that remembers earlier frames, such as a ScaleTrack, for `association_benchmark`.

    Args:
        network: in evaluation mode, with `embedder(scaling, device)`; it knows its device itself.
        name: what reports call it.
        scaling: at what size it looks at frames; None: its own.
    """
    return Embedding(name=name, embedder=network.embedder(scaling))


def network_embedding(network: Any, scaling: FrameScaling, device: torch.device) -> PixelEmbedding:
    """A function of picture and boxes that runs a network.

    Args:
        network: in evaluation mode, on `device`; `embed(images, boxes)` takes (1, 3, H, W) float RGB 0..255 and a list
            with (N, 4) `xyxy` pixels of the scaled image, and returns a list with (N, D).
        scaling: scales pictures to the network's input size.
        device: the device of the network.
    """
    import torch

    @torch.inference_mode()
    def of_pixels(image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        if not len(boxes):
            return np.zeros((0, 0), np.float32)
        scaled = torch.from_numpy(boxes * scaling.factors(*image.shape[:2])).to(device)
        vectors: NDArray[np.float32] = network.embed(scaling.scale([image], device), [scaled])[0].float().cpu().numpy()
        return vectors

    return of_pixels
