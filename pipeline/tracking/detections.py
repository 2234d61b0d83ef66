"""Which detections are tracked: those of a file, of a detector by its name, or of an object that somebody gives."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trackmill.models.choice import Choice, DetectorChoice, no_detector
from trackmill.models.detectors.base import Detector
from trackmill.models.detectors.options import DetectorOptions, with_options
from trackmill.models.embedders.base import SharedFeatures
from trackmill.models.registry import DETECTORS, names_detector
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.tracking.detection_files import SUFFIXES, FileDetections, read_detections
from trackmill.pipeline.tracking.frame_reader import FrameReader
from trackmill.pipeline.tracking.picture_frames import PictureFrames
from trackmill.pipeline.tracking.settings import TrackConfig
from trackmill.pipeline.tracking.yolo_labels import read_yolo_labels
from trackmill.pipeline.weights import (
    VocabularyRequest,
    build_detector,
    choose_detector,
    detector_weights,
    read_classes,
    read_weights,
)
from trackmill.schemas.config import build
from trackmill.schemas.errors import InputError
from trackmill.schemas.names import nearest

if TYPE_CHECKING:
    import torch

    from trackmill.models.detic.vocabulary import Vocabulary


FILE = "file:"
"""What may stand before a file of detections, as it has to for detections of sidecars."""

NAME_OF_VIDEO = "{name}"
"""What stands in `--detections det/{name}.txt` for the name of each video."""


def check_detections_of_several(detections: str | None) -> None:
    """Refuse one file of boxes for several videos.

    Raises:
        InputError: says how to name one for each.
    """
    if detections is None or names_detector(detections) or NAME_OF_VIDEO in detections:
        return
    if not redact(detections).lower().endswith((".txt", ".csv", ".parquet")):  # those hold many videos, by their names
        return
    raise InputError(
        f"--detections {redact(detections)}: is of one video, and several are given; write {NAME_OF_VIDEO} for "
        f"the name of each, as in det/{NAME_OF_VIDEO}.txt"
    )


def read_file_detections(
    detections: str | None, reader: FrameReader, images: str | None, min_score: float | None
) -> FileDetections | None:
    """Detections that are in a file; None where `detections` names a detector or nothing. See `read_detections`."""
    if detections is None or names_detector(detections):
        return None
    detections = detections.removeprefix(FILE).replace(NAME_OF_VIDEO, reader.name)
    key, colon, rest = detections.partition(":")
    if colon and not rest.startswith("//") and not os.path.exists(detections) and (advice := nearest(key, DETECTORS)):
        raise InputError(f"--detections: no detector is called {key!r}; {advice} (followed by a colon)")
    plain = not set(detections) & set(":/.")
    if plain and not os.path.exists(detections) and (advice := nearest(detections, DETECTORS)):
        raise InputError(f"--detections: no detector is called {detections!r}; {advice}")
    least = float("-inf") if min_score is None else min_score
    if not redact(detections).lower().endswith(SUFFIXES):
        return read_yolo_labels(detections, reader.name, reader.file_names, least)
    found = read_detections(detections, reader.name, reader.file_names, images, least)
    if isinstance(reader, PictureFrames) and redact(detections).lower().endswith((".txt", ".csv")):
        reader.fit_rows(found.frame_numbers, redact(detections))
    return found


def wanted_detector(
    detections: str | Detector | None,
    weights: str | None,
    options: Mapping[str, Any],
    model: Choice | None,
    config: TrackConfig,
) -> tuple[DetectorChoice, VocabularyRequest | None] | None:
    """The detector that is named, with its settings checked; None where detections come from elsewhere."""
    if isinstance(detections, str):
        owner = model
        wanted = choose_detector(detections, options, owner)
        choice = wanted[0]
        if weights and choice.inside and not getattr(choice.offer, "takes_weights", False):
            # With weights of its own it is the registry's, beside the model.
            owner = None
            wanted = choose_detector(detections, options, owner)
            choice = wanted[0]
        if choice.inside or not choice.entry.on_features:
            if config.proposals:
                raise InputError(f"--set proposals: goes with the model's own proposals, not with {choice.where}")
            if not choice.inside:
                detector_weights(choice, weights)
            return wanted
        return choose_detector(detections, {**config.proposals, **options}, owner)
    given = set(options) - {"min_score"} if detections is None else set()
    for option, wrong in (
        ("--detector-weights", weights),
        ("--classes", given == {"classes"}),
        ("--text-weights", given == {"text_weights"}),
        ("--set detector", given),
        ("--set proposals", config.proposals),
    ):
        if wrong:
            raise InputError(f"{option}: goes with a detector that --detections names; there is none")
    return None


def built_detector(
    choice: DetectorChoice,
    weights: str | None,
    device: torch.device,
    features: SharedFeatures | None,
    tensors: Any,
    vocabulary: Vocabulary | None,
) -> Detector:
    """A detector as `wanted_detector` chose it, ready for use.

    Args:
        choice, vocabulary: from there, the vocabulary read.
        weights: path or URL of its checkpoint; None: those that its name says.
        device: where it is to lie.
        features: of the model, for a detector that works on them.
        tensors: of the model's checkpoint, for a detector that lies in it.

    Raises:
        InputError: what was built is no detector.
    """
    shared: dict[str, Any] = {"features": features} if choice.entry.on_features else {}
    if vocabulary is not None:
        shared["vocabulary"] = vocabulary
    if choice.inside:
        detector = choice.build(read_weights(weights) if weights else tensors, device, **shared)
    else:
        detector = build_detector(choice, weights, device, shared)
    if not isinstance(detector, Detector):
        raise InputError(f"--detections {choice.name}: {no_detector(detector)}")
    return detector


def with_detector_options(detector: Detector, options: dict[str, Any]) -> Detector:
    """Detections that come from a file, or from whoever calls, behind the options of all detectors."""
    if isinstance(options.get("classes"), str):
        options["classes"] = read_classes(options["classes"])
    checked = build(DetectorOptions, options, "--set detector (of detections that are given)")
    return with_options(detector, dict(checked), name="--detections")
