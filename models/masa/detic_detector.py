"""Detic as the detector of masa_detic: its heads on the maps that the embeddings are made from, one pass of the Swin.

As MASA runs it (its configurations `masa-detic` and `projects/Detic_new`, read at commit e302032): frames are scaled as
for the embeddings, boxes of all classes suppress each other, and the best 100 of a frame stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from trackmill.models.detectors.base import Detector
from trackmill.models.detectors.options import OPTIONS, DetectorOptions
from trackmill.models.detic.loading import fit_network, num_stored_classes, stored_names
from trackmill.models.detic.mmdet_names import INSIDE_MASA, has_mmdet_names, to_official
from trackmill.models.detic.network import DeticNetwork
from trackmill.models.detic.settings import MMDET, OFFICIAL, VARIANTS, DetectionSettings
from trackmill.models.masa.frame_features import FrameFeatures
from trackmill.models.weights.checkpoint import Checkpoint
from trackmill.schemas.detections import Detections
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    from trackmill.models.detic.vocabulary import Vocabulary, as_vocabulary

ADVICE = "give the official detic_masa.pth as --weights, or a Detic of its own: --detections detic:FILE"

FLAVOURS = {"mmdet": MMDET, "official": OFFICIAL}
"""What `flavour` may say."""


class MasaDeticSettings(DetectorOptions):
    """Detic inside masa_detic. Defaults: MASA's, where the open-vocabulary benchmark takes 0.02 and 50 boxes."""

    min_score: float = Field(0.01, ge=0, le=1, description="What a score must exceed; MASA: 0.01.")
    nms_iou: float = Field(0.5, ge=0, le=1, description="Of two boxes that overlap more, the better one stays.")
    class_agnostic_nms: bool = Field(True, description="Whether boxes of other classes are removed too, as in MASA.")
    max_boxes: int = Field(100, ge=1, description="Boxes a frame; the best stay. MASA: 100.")
    one_class_per_proposal: bool = Field(False, description="Give each box its best class only; MASA: false.")
    flavour: Literal["mmdet", "official"] = Field(
        "mmdet",
        description="mmdet: boxes as MASA's released code gives them; official: as Detic's own, with which the weights "
        "were trained; they differ by a hundredth of what the last stage moves a box.",
    )


class MasaDeticDetector(Detector):
    """Detic's pyramid, proposals and heads on the backbone maps of a masa_detic.

    Args:
        features: the model and its maps; shared with whoever embeds the same frames.
        network: without a backbone of its own.
        names: of its classes.
        settings: what becomes a detection.
    """

    Config = MasaDeticSettings

    version = 1
    applies = frozenset(OPTIONS)
    takes_vocabulary = True

    def __init__(
        self, features: FrameFeatures, network: DeticNetwork, names: tuple[str, ...], settings: DetectionSettings
    ) -> None:
        self._features, self._network, self._settings = features, network, settings
        self.names = names
        self.category_ids = tuple(range(1, len(names) + 1))

    @classmethod
    def build(
        cls,
        config: MasaDeticSettings,
        tensors: Mapping[str, Tensor] | None = None,
        device: torch.device | str = "cpu",
        *,
        features: FrameFeatures,
        vocabulary: Vocabulary | None = None,
    ) -> MasaDeticDetector:
        """What the registry builds; see `trackmill.models.registry`.

        Args:
            config: what becomes a detection.
            tensors: the checkpoint of the model, in which the detector is.
            device: where the model lies.
            features: the model's maps.
            vocabulary: its classes; None: those whose vectors are in the checkpoint.

        Raises:
            ValueError: there is no checkpoint, it has no detector in it, or tensors of it do not fit; says which.
        """
        name = features.model.variant.name
        if tensors is None:
            raise InputError(f"--detections detic: {name} has no weights to detect with; {ADVICE}")
        if vocabulary is None and config.classes is not None:
            vocabulary = as_vocabulary(config.classes)  # asked of the registry itself, which reads no vocabularies
        where = tensors.where if isinstance(tensors, Checkpoint) else "the weights"
        if not has_mmdet_names(tensors):
            raise InputError(
                f"{where}: holds {name} without the detector around its backbone, as our own "
                f"checkpoints and exports do; {ADVICE}"
            )
        # The backbone is in the model already, and is not read a second time.
        backbone = features.model.variant.backbone_prefix
        heads = [key for key in tensors if key.startswith(INSIDE_MASA) and not key.startswith(backbone)]
        official = Checkpoint(tensors=to_official({key: tensors[key] for key in heads}), where=where)
        num_classes = num_stored_classes(official) if vocabulary is None else 1
        with torch.random.fork_rng(devices=[]):  # drawn and at once replaced
            network = DeticNetwork(VARIANTS["swinb"], num_classes, flavour=FLAVOURS[config.flavour], bottom_up=False)
        fit_network(network, official, own_classes=vocabulary is None)
        names = stored_names(num_classes)
        if vocabulary is not None:
            network.set_vocabulary(vocabulary)
            names = vocabulary.names
        settings = DetectionSettings(
            score_threshold=config.min_score,
            nms_iou=config.nms_iou,
            class_agnostic_nms=config.class_agnostic_nms,
            max_boxes=config.max_boxes,
            one_class_per_proposal=config.one_class_per_proposal,
        )
        return cls(features, network.to(device), names, settings)

    @classmethod
    def recognise(cls, tensors: Mapping[str, Tensor]) -> str | None:
        """None: its tensors are in the model's checkpoint."""
        return None

    @torch.inference_mode()
    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        """See `Detector.detect`; boxes lie inside the image and have an area, best first."""
        detections = []
        for run in self._features.of(images):
            sizes = [run.scaled] * (run.frames.stop - run.frames.start)
            for boxes, scores, labels in self._network.detect_maps(run.maps, sizes, self._settings):
                detections.append(self._in_pixels(boxes, scores, labels, run.factors, run.size))
        return detections

    def _in_pixels(
        self, boxes: Tensor, scores: Tensor, labels: Tensor, factors: NDArray[np.float32], size: tuple[int, int]
    ) -> Detections:
        """Detections in a frame, from boxes in the scaled frame."""
        height, width = size
        # The scaled border, divided by a rounded factor, may come out a hair beyond the image's.
        back = boxes.float().cpu().numpy() / factors
        back = np.clip(back, 0, np.array([width, height, width, height], np.float32))
        kept = (back[:, 2:] > back[:, :2]).all(axis=1)
        return Detections(
            boxes=back[kept].astype(np.float32),
            scores=scores.float().cpu().numpy()[kept],
            labels=labels.cpu().numpy()[kept],
            names=self.names,
        )
