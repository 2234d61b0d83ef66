"""From names and files to the parts of a tracking run: model, detector, embedder, segmenter, tracker."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from trackmill.models.device import choose_device as choose_device
from trackmill.models.masa.variants import VARIANTS
from trackmill.pipeline.tracking.detection_files import FileDetections, read_detections
from trackmill.pipeline.tracking.frames import FrameReader
from trackmill.pipeline.tracking.run import Parts
from trackmill.pipeline.tracking.settings import SizeSettings, TrackConfig, make_tracker
from trackmill.pipeline.weights import build_model, read_weights
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    import torch

    from trackmill.models.detectors.base import Detector
    from trackmill.models.detectors.frame_scaling import FrameScaling
    from trackmill.models.masa.frame_features import FrameFeatures
    from trackmill.models.masa.model import Masa

PROPOSALS = "masa"
TORCHVISION = "torchvision:"
UNTRAINED = "none"
"""What is said instead of a URL for a torchvision detector with random weights."""

_NEEDED = 'tracking needs torch and more: pip install -e ".[masa]"'


def load_model(name: str, weights: str | None, device: torch.device | str) -> Masa:
    """A MASA variant ready for use; a remote checkpoint is fetched once into a cache.

    Args:
        name: of the variant.
        weights: path or URL; `imagenet` for masa_lite0; None for random weights.
        device: where it is put.

    Raises:
        ValueError: an unknown variant, or weights that do not fit it.
        OSError: the file could not be fetched.
        ImportError: a package is missing.
    """
    check_variant(name)
    network: Masa = build_model(name, weights, device)
    return network


def check_variant(name: str) -> None:
    """Raise `ValueError`, with the nearest name, unless there is a variant of that name."""
    if name not in VARIANTS:
        near = difflib.get_close_matches(name, VARIANTS, n=1)
        advice = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"model {name!r}: {advice}known are {', '.join(VARIANTS)}")


def model_scaling(name: str, size: SizeSettings) -> FrameScaling:
    """At what size a variant looks at frames: as its benchmark configuration says, unless settings say otherwise."""
    from trackmill.models.detectors.frame_scaling import FrameScaling

    long_side, short_side = VARIANTS[name].resize
    # A longer side alone sets the size, also where the variant limits the shorter one.
    other = size.short_side or (size.long_side if size.long_side else short_side)
    return FrameScaling(long_side=size.long_side or max(long_side, size.short_side), short_side=other)


def read_file_detections(
    detections: str, reader: FrameReader, images: str | None, min_score: float | None
) -> FileDetections | None:
    """Detections that are in a file; None where `detections` names a detector. See `read_detections`."""
    if detections == PROPOSALS or detections.startswith(TORCHVISION):
        return None
    least = float("-inf") if min_score is None else min_score
    return read_detections(detections, reader.name, reader.file_names, images, least)


def make_parts(
    *,
    model: str,
    weights: str | None,
    detections: str,
    from_file: FileDetections | None,
    detector_weights: str | None,
    masks: bool,
    tracker: str,
    device: str,
    batch_size: int,
    min_score: float | None,
    config: TrackConfig,
) -> Parts:
    """Everything a run needs; cheap checks come before anything is loaded.

    Args:
        model, weights: the variant and its checkpoint.
        detections: `masa`, `torchvision:NAME`, or a file's URL.
        from_file: what that file holds.
        detector_weights: path or URL of the torchvision detector's state dict; None: torchvision's own, `none`: random.
        masks: whether SAM's decoder segments what is tracked.
        tracker: a name in `PRESETS`.
        device: see `choose_device`.
        batch_size: frames at once.
        min_score: detections below it are left out; None: the detector's own choice.
        config: all other settings.

    Raises:
        ValueError, OSError, ImportError: a name, file or package is wrong or missing; the text says what to do.
    """
    check_variant(model)
    linker = make_tracker(tracker, config.tracker)
    if masks and not VARIANTS[model].backbone.startswith("sam_"):
        raise InputError(f"--masks: {model} has no mask decoder; use masa_sam_vitb or masa_sam_vith")
    place = choose_device(device)
    detector: Detector | None = from_file
    if detector is None and detections.startswith(TORCHVISION):
        detector = _torchvision(detections.removeprefix(TORCHVISION), detector_weights, min_score, place, config)
    network, scaling = load_model(model, weights, place), model_scaling(model, config.size)

    from trackmill.models.masa.frame_features import FrameFeatures
    from trackmill.pipeline.tracking.embedding import Embedder, FeatureEmbedder

    if detector is not None and not masks:
        embedder = Embedder(network, scaling, place)
        return Parts(detector=detector, embedder=embedder, tracker=linker, batch_size=batch_size)

    features = FrameFeatures(network, scaling, place)
    segmenter = None
    if masks:
        from trackmill.models.masa.masks import SamMasks

        segmenter = SamMasks(features)
    return Parts(
        detector=_proposals(features, min_score, config) if detector is None else detector,
        embedder=FeatureEmbedder(features),
        tracker=linker,
        segmenter=segmenter,
        batch_size=batch_size,
    )


def _proposals(features: FrameFeatures, min_score: float | None, config: TrackConfig) -> Detector:
    from trackmill.models.masa.detector import MasaProposals
    from trackmill.models.masa.rpn_inference import DetectionSettings

    asked = config.proposals
    least = asked.min_score if min_score is None else min_score
    settings = DetectionSettings(score_threshold=least, iou_threshold=asked.nms_iou, kept=asked.max_boxes)
    return MasaProposals(features, settings)


def _torchvision(
    name: str, weights: str | None, min_score: float | None, device: torch.device, config: TrackConfig
) -> Detector:
    from trackmill.models.detectors.torchvision_detector import TorchvisionDetector, published_weights

    state = None
    if weights != UNTRAINED:
        state = read_weights(weights or published_weights(name))
    options = dict(config.detector)
    if min_score is not None:
        options["min_score"] = min_score
    try:
        return TorchvisionDetector(name, state, device=device, **options)
    except TypeError as error:
        raise InputError(f"--set detector: {error}") from None
