"""Detic as the detector of scaletrack_unified_detic: its heads on the maps that the embeddings are made from.

The frozen backbone is Detic's own (the paper's Table 20), so one pass of the Swin serves both. Frames are scaled as
Detic's are in MASA's benchmarks, the longer side 1333 and the shorter one 800 at most: detections are those of a Detic
by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from trackmill.models.backbones.official import recognise_backbone
from trackmill.models.detectors.frame_scaling import FrameScaling, LatestMaps, Size
from trackmill.models.detic.loading import fit_network, num_stored_classes, official_tensors, stored_names
from trackmill.models.detic.network import DeticNetwork
from trackmill.models.detic.settings import VARIANTS, DetectionSettings
from trackmill.models.embedders.base import Embedder
from trackmill.models.masa.detic_detector import FLAVOURS, MasaDeticDetector, MasaDeticSettings
from trackmill.models.scaletrack.model import ScaleTrack
from trackmill.models.scaletrack.stream import Stream
from trackmill.models.weights.checkpoint import Checkpoint
from trackmill.schemas.boxes import Boxes
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    from trackmill.models.detic.vocabulary import Vocabulary

ADVICE = "name Detic's own checkpoint, on which the model was trained: --detector-weights Detic_..._CLIP_SwinB_....pth"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SharedMaps:
    """Maps of B neighbouring frames of one size.

    Args:
        frames: which of the batch they are.
        size: their height and width in pixels.
        scaled: the same after scaling, before padding.
        factors: (4,) float32, by which a box in a frame is multiplied to lie in the scaled one.
        maps: of the backbone, each (B, C, H_l, W_l).
    """

    frames: slice
    size: Size
    scaled: Size
    factors: NDArray[np.float32]
    maps: list[Tensor]


class SharedFeatures:
    """Remembers the maps of the latest batch, for a detector and an embedder of the same model.

    Args:
        model: in evaluation mode.
        scaling: the size at which it sees the frames.
    """

    def __init__(self, model: ScaleTrack, scaling: FrameScaling) -> None:
        self.model, self.scaling = model, scaling
        self._latest = LatestMaps[SharedMaps]()

    @torch.inference_mode()
    def of(self, images: Sequence[NDArray[np.uint8]]) -> list[SharedMaps]:
        """Maps of a batch of (H, W, 3) uint8 RGB frames; the very same arrays once more cost nothing."""
        return self._latest.of(images, self._compute)

    def embedder(self) -> MapsEmbedder:
        """An embedder that reads these maps."""
        return MapsEmbedder(self)

    def _compute(self, images: Sequence[NDArray[np.uint8]], run: slice) -> SharedMaps:
        height, width = images[run.start].shape[:2]
        batch = self.scaling.scale(images[run], self.model.device) / 255  # (B, 3, h, w)
        scaled: Size = (batch.shape[2], batch.shape[3])
        divisor = self.model.divisor
        padded = F.pad(batch, (0, -scaled[1] % divisor, 0, -scaled[0] % divisor))
        sizes = torch.tensor([scaled], device=padded.device)
        return SharedMaps(
            frames=run,
            size=(height, width),
            scaled=scaled,
            factors=self.scaling.factors(height, width),
            maps=self.model.backbone_maps(padded, sizes),
        )


class MapsEmbedder(Embedder):
    """Embeds boxes on maps that a detector of the same model reads too, and remembers the frames before.

    Args:
        features: the model and its maps.
    """

    def __init__(self, features: SharedFeatures) -> None:
        self._features = features
        self._stream = Stream(features.model)
        self._shape: tuple[int, ...] | None = None

    def reset(self) -> None:
        """See `Embedder.reset`."""
        self._stream.reset()
        self._shape = None

    @torch.inference_mode()
    def embed(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Boxes]) -> list[NDArray[np.float32]]:
        """See `Embedder.embed`. Where frames change their shape, what was remembered of the old shape is forgotten."""
        embeddings = []
        for run in self._features.of(images):
            shape = tuple(run.maps[-1].shape[2:])
            if shape != self._shape:
                self._stream.reset()
                self._shape = shape
            for place, each in enumerate(boxes[run.frames]):
                maps = [level[place : place + 1] for level in run.maps]
                located = torch.from_numpy((each * run.factors).astype(np.float32))
                rows = self._stream.step_maps(maps, located, run.scaled)
                embeddings.append(rows.float().cpu().numpy())
        return embeddings


class UnifiedDeticSettings(MasaDeticSettings):
    """Detic inside scaletrack_unified_detic: MASA's settings, as in the paper's benchmarks, and Detic's own numbers."""

    flavour: Literal["mmdet", "official"] = Field(
        "official", description="official: boxes as Detic's own code gives them; mmdet: as MASA's released code does."
    )


class UnifiedDeticDetector(MasaDeticDetector):
    """Detic's pyramid, proposals and heads on the backbone maps of a scaletrack_unified_detic.

    Args:
        features: the model and its maps; shared with whoever embeds the same frames.
        network: without a backbone of its own.
        names: of its classes.
        settings: what becomes a detection.
    """

    Config = UnifiedDeticSettings
    takes_weights = True

    @classmethod
    def build(  # type: ignore[override]  # other features
        cls,
        config: UnifiedDeticSettings,
        tensors: Mapping[str, Tensor] | None = None,
        device: torch.device | str = "cpu",
        *,
        features: SharedFeatures,
        vocabulary: Vocabulary | None = None,
    ) -> UnifiedDeticDetector:
        """What the registry builds; see `trackmill.models.registry`.

        Args:
            config: what becomes a detection.
            tensors: Detic's checkpoint; that of the model itself, where it is one.
            device: where the model lies.
            features: the model's maps.
            vocabulary: its classes; None: those whose vectors are in the checkpoint.

        Raises:
            ValueError: there is no checkpoint of Detic, its backbone is another than the model's, or tensors of it do
                not fit; says which.
        """
        name = features.model.variant.name
        if tensors is None:
            raise InputError(f"--detections detic: {name} has no weights to detect with; {ADVICE}")
        where = tensors.where if isinstance(tensors, Checkpoint) else "the weights"
        official = official_tensors(Checkpoint(tensors=dict(tensors), where=where))
        heads = {key: each for key, each in official.items() if not key.startswith("backbone.bottom_up.")}
        if not any(key.startswith("roi_heads.") for key in heads):
            raise InputError(f"{where}: holds {name} without Detic's heads, as our own files do; {ADVICE}")
        _check_backbone(features.model, official)
        if vocabulary is None and config.classes is not None:
            from trackmill.models.detic.vocabulary import as_vocabulary

            vocabulary = as_vocabulary(config.classes)  # asked of the registry itself, which reads no vocabularies
        num_classes = num_stored_classes(official) if vocabulary is None else 1
        with torch.random.fork_rng(devices=[]):  # drawn and at once replaced
            network = DeticNetwork(VARIANTS["swinb"], num_classes, flavour=FLAVOURS[config.flavour], bottom_up=False)
        fit_network(network, Checkpoint(tensors=heads, where=where), own_classes=vocabulary is None)
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
        return cls(features, network.to(device), names, settings)  # type: ignore[arg-type]


def _check_backbone(model: ScaleTrack, official: Checkpoint) -> None:
    """Heads on maps of another backbone than theirs would find nothing, in silence.

    Raises:
        InputError: it is another one; names a tensor.
    """
    found = recognise_backbone(official)
    own = model.backbone.network.state_dict()
    given = {} if found is None else found.tensors
    for key, values in own.items():
        if not values.is_floating_point():
            continue
        if key not in given or not torch.equal(given[key].to(values), values):
            raise InputError(
                f"{official.where}: its backbone is not the one that {model.variant.name} stands on ({key} differs); "
                f"{ADVICE}"
            )
