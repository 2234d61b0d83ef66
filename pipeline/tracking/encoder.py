"""Appearance embeddings for somebody else's tracker, in the forms in which trackers ask for them.

from trackmill import AppearanceEncoder
encoder = AppearanceEncoder("masa_r50", weights="masa_r50.pth")
embeddings = encoder(image, boxes)  # (N, D)
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackmill.models.device import choose_device
from trackmill.models.embedders.base import Embedder, EmbeddingNetwork
from trackmill.models.registry import MODELS
from trackmill.pipeline.tracking.build import network_embedder
from trackmill.pipeline.tracking.detection_forms import as_detections
from trackmill.pipeline.weights import build_model, choose_model
from trackmill.schemas.errors import InputError

log = logging.getLogger("trackmill")


class AppearanceEncoder:
    """Describes the objects in boxes by vectors of unit length: the cosine of two says how alike two objects look.

    It is called in four ways, each of which gives the same numbers: `encoder(image, boxes)`, as trackers call a plain
    function; `extract_embeddings(detections, frame)`, as with `reid` and supervision; `extract_features(frame,
    detections)`, as DeepSORT of `trackers` 2.0 asks; `get_features(boxes, image)`, as in boxmot.

    Args:
        model: a name of `trackmill.models.registry.MODELS` that embeds boxes, or `my_package.my_module:Class`; or an
            object: an `Embedder`, or a network with `embed(images, boxes)`.
        weights: path or URL of the model's checkpoint, or a word that it knows; None: random weights.
        device: `auto` (a GPU where there is one), `cpu`, `cuda:1`, ...
        bgr: images come in blue, green, red, as OpenCV reads them.

    Raises:
        ValueError: an unknown name, weights of another model, or a model that finds objects itself.
        ImportError: torch or another package is missing; says what to type.
    """

    def __init__(
        self,
        model: str | EmbeddingNetwork | Embedder,
        weights: str | None = None,
        *,
        device: str = "auto",
        bgr: bool = False,
    ) -> None:
        self._bgr = bgr
        self._embedder = self._built(model, weights, device)
        self._dimension = 0

    @staticmethod
    def _built(model: Any, weights: str | None, device: str) -> Embedder:
        if isinstance(model, Embedder):
            return model
        place = choose_device(device)
        if not isinstance(model, str):
            return network_embedder(model, None, place)
        choice = choose_model(model, weights)[0]
        if choice.entry.end_to_end:
            named = ", ".join(name for name, entry in MODELS.items() if not entry.end_to_end)
            raise InputError(f"{model} finds objects itself and describes no boxes of others; take one of {named}")
        if weights is None and model in MODELS:
            log.warning("%s without weights: they are random, so embeddings say nothing", model)
        network = build_model(model, weights, place)
        if not hasattr(network, "embedder") and not callable(getattr(network, "embed", None)):
            raise InputError(f"{model} has no embed(images, boxes)")
        return network_embedder(network, choice, place)

    def __call__(self, image: NDArray[np.uint8], boxes: Any) -> NDArray[np.float32]:
        """Embeddings of the boxes of an image.

        Args:
            image: (H, W, 3) uint8, RGB unless `bgr` was given.
            boxes: (N, 4) `xyxy` in pixels of the image, which they may leave; or detections in any form that
                `VideoTracker.update` takes.

        Returns:
            (N, D) float32 of unit length, in the order of the boxes. Without boxes (0, D), with D = 0 before the first
            box was seen.

        Raises:
            ValueError: an image or boxes of another form.
        """
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            form = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise InputError(f"image: should be (H, W, 3) uint8, found {form}")
        found = as_detections(boxes).boxes
        pixels = image[:, :, ::-1] if self._bgr else image
        # Also without boxes: an embedder that remembers earlier frames has to see each.
        (vectors,) = self._embedder.embed([np.ascontiguousarray(pixels)], [found])
        if not len(found):
            return np.zeros((0, self._dimension), np.float32)
        self._dimension = vectors.shape[1]
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)

    def extract_embeddings(self, detections: Any, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """As `reid.ReIDModel.extract_embeddings`: supervision's detections first, then the frame."""
        return self(frame, detections)

    def extract_features(self, frame: NDArray[np.uint8], detections: Any) -> NDArray[np.float32]:
        """As the feature extractor of DeepSORT in `trackers` 2.0: the frame first, then supervision's detections."""
        return self(frame, detections)

    def get_features(self, boxes: Any, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """As the backends of boxmot: boxes (N, 4) first, then the image."""
        return self(image, boxes)

    def reset(self) -> None:
        """The next image is the first of another video; for models that remember earlier frames (ScaleTrack)."""
        self._embedder.reset()
