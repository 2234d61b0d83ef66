"""Detic behind the contract of detectors, as the registry builds it: `detic:WEIGHTS`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from trackmill.models.detectors.base import Detector
from trackmill.models.detectors.options import OPTIONS, DetectorOptions
from trackmill.models.detic.loading import load_model, official_tensors
from trackmill.models.detic.lvis_names import LVIS_NAMES
from trackmill.models.detic.model import Detic, Precision
from trackmill.models.detic.network import DeticNetwork
from trackmill.models.detic.recognising import recognise_variant
from trackmill.models.detic.settings import EMBEDDING, VARIANTS
from trackmill.models.detic.vocabulary import Vocabulary, as_vocabulary
from trackmill.models.device import choose_device
from trackmill.models.weights.read import as_checkpoint
from trackmill.schemas.detections import Detections


class DeticOptions(DetectorOptions):
    """Options of all detectors, and its own. Left out: a least score of 0.3, NMS of 0.5 in each class, 300 boxes."""

    min_score: float | None = Field(None, ge=0, le=1, description="Detections of at most this score are left out.")
    variant: Literal["swinb", "r50"] | None = Field(None, description="Left out: what the checkpoint is.")
    short_side: int = Field(800, ge=1, description="Images are scaled to it, in pixels; 640 in the fast models.")
    long_side: int = Field(1333, ge=1, description="Unless the longer side would pass this one; 640 there.")
    one_class_per_proposal: bool = Field(False, description="Give each box its best class only, as the demo does.")
    masks: bool = Field(False, description="Draw the mask of each detection too.")
    batch_size: int | None = Field(
        None, ge=1, description="Images in the network together; left out: 1 on the CPU, 8 on a GPU."
    )
    dtype: Precision = Field("float32", description="bfloat16 and float16 are faster on a GPU, and less exact.")
    compile: bool = Field(False, description="Compile the network; takes a minute for each size of image.")
    seed: int = Field(0, description="Of fresh weights, where there is no checkpoint.")


class DeticDetector(Detector):
    """Detic with its options.

    The same images in calls of the same length give the same bits; in others, see
    `trackmill.models.detic.model.Detic`.

    Args:
        detic: what finds objects. Its vocabulary is not to be changed any more.
        options: what is asked of it.
    """

    Config = DeticOptions
    applies = frozenset(OPTIONS)
    takes_vocabulary = True
    version = 1
    """Raised whenever the same weights and images give other detections."""

    def __init__(self, detic: Detic, options: DeticOptions) -> None:
        self._detic, self._options = detic, options
        self.names = detic.names
        self.category_ids = tuple(range(1, len(self.names) + 1))  # LVIS counts its classes from 1

    @classmethod
    def build(
        cls,
        config: DeticOptions,
        tensors: Mapping[str, torch.Tensor] | None = None,
        device: torch.device | str = "cpu",
        *,
        vocabulary: Vocabulary | None = None,
    ) -> DeticDetector:
        """What the registry builds; see `trackmill.models.registry`.

        Args:
            config: options; `classes` count where there is no `vocabulary`, and are encoded by CLIP.
            tensors: of a checkpoint; None: fresh weights, which find nothing of interest.
            device: where it runs.
            vocabulary: the classes; None: those of the checkpoint.

        Raises:
            ValueError: tensors that are not Detic's, or do not fit; see `trackmill.models.detic.load`.
        """
        if vocabulary is None and config.classes is not None:
            vocabulary = as_vocabulary(config.classes)  # asked of the registry itself, which reads no vocabularies
        if tensors is not None:
            detic = load_model(
                tensors,
                vocabulary,
                config.variant,
                device,
                masks=config.masks,
                dtype=config.dtype,
                compile=config.compile,
            )
            return cls(detic, config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = DeticNetwork(VARIANTS[config.variant or "swinb"]).to(choose_device(str(device)))
        detic = Detic(network, (), masks=config.masks, dtype=config.dtype, compile=config.compile)
        detic.set_vocabulary(vocabulary or _fresh_vocabulary(config.seed))
        return cls(detic, config)

    @classmethod
    def recognise(cls, tensors: Mapping[str, torch.Tensor]) -> str | None:
        """`detic` for a checkpoint of Detic that we have, with official names or mmdet's; None for others."""
        if not tensors:
            return None
        return "detic" if recognise_variant(official_tensors(as_checkpoint(tensors))) else None

    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        """See `Detector.detect`; boxes lie inside the image, best first."""
        options = self._options
        asked = {key: getattr(options, key) for key in ("nms_iou", "class_agnostic_nms", "max_boxes")}
        return self._detic.detect(
            images,
            score_threshold=0.3 if options.min_score is None else options.min_score,
            resize=(options.short_side, options.long_side),
            one_class_per_proposal=options.one_class_per_proposal,
            batch_size=options.batch_size,
            **{key: value for key, value in asked.items() if value is not None},
        )


def _fresh_vocabulary(seed: int) -> Vocabulary:
    """As many classes as LVIS has, with vectors that mean nothing."""
    vectors = np.random.default_rng(seed).standard_normal((len(LVIS_NAMES), EMBEDDING), np.float32)
    return Vocabulary(vectors, LVIS_NAMES)
