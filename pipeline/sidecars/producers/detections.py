"""Detections: what any detector of the registry finds in the stored frames."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from pydantic import Field

from trackmill.models.device import choose_device
from trackmill.models.registry import find_detector, find_model
from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.sidecars.columns import Column
from trackmill.pipeline.sidecars.producer import Producer, Rows
from trackmill.pipeline.storage.fetched import fetch_weights
from trackmill.pipeline.weights import RANDOM, build_detector, build_model
from trackmill.schemas.boxes import clip_boxes
from trackmill.schemas.config import Settings
from trackmill.schemas.detections import Detections
from trackmill.schemas.errors import InputError

_LIBRARIES = ("torch", "torchvision")


class DetectionSettings(Settings):
    """Which detector, and which of its detections are kept."""

    detector: str = Field(
        "torchvision:fasterrcnn_resnet50_fpn_v2",
        description="torchvision:NAME, masa (its own proposals), or my_package.my_module:Class.",
    )
    model: str = Field("masa_r50", description="The model whose proposals they are; for the detector masa alone.")
    weights: str = Field(
        "", description="Path or URL of the checkpoint, for masa the model's; empty: published ones, if there are some."
    )
    weights_sha256: str = Field("", description="What that file must have; filled in where it is empty.")
    options: dict[str, Any] = Field(default_factory=dict, description="Settings of the detector itself.")
    min_score: float = Field(0.1, ge=0, le=1, description="Detections below it are left out.")
    max_boxes: int = Field(300, ge=1, description="Most detections of a frame, best first.")
    batch_size: int = Field(8, ge=1, description="Frames of a sample that are looked at together.")
    device: str = Field("auto", description="auto: a GPU where there is one; cpu, cuda, cuda:1.")


class DetectionProducer(Producer):
    """Runs a detector over the frames of a sample.

    Args:
        config: see `DetectionSettings`.
    """

    name = "detections"
    version = 1
    uses_gpu = True
    # Which detector it is stands in `implementation`, by its name and not by its module; its weights by their SHA-256.
    not_in_fingerprint = frozenset({"detector", "weights", "device"})
    Config = DetectionSettings
    columns: tuple[Column, ...] = (
        Column(name="box", dtype="box", unit="px", description="The detection, cut at the border of the frame."),
        Column(name="score", dtype="float32", description="Confidence; the best of a frame comes first."),
        Column(name="label", dtype="string", description="Name of the class."),
    )

    def __init__(self, config: DetectionSettings) -> None:
        self._config = config
        self._detector = load_detector(config)

    def rows(self, sample: Sample) -> Rows:
        """See `Producer.rows`; frames are decoded a batch at a time."""
        count = len(sample.record.frames)
        height, width = sample.record.stored.height, sample.record.stored.width
        frames, boxes, scores, labels = [], [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)], []
        for begin in range(0, count, self._config.batch_size):
            numbers = range(begin, min(begin + self._config.batch_size, count))
            images = [sample.image(number) for number in numbers]
            for number, found in zip(numbers, self._detector.detect(images, numbers)):
                kept = self._kept(found, height, width)
                frames += [number] * len(kept)
                boxes.append(kept.boxes)
                scores.append(kept.scores)
                labels += [kept.names[i] if kept.names else str(i) for i in kept.labels.tolist()]
        return {
            "frame": np.array(frames, np.int32),
            "box": np.concatenate(boxes),
            "score": np.concatenate(scores),
            "label": labels,
        }

    @classmethod
    def resolve(cls, config: DetectionSettings) -> DetectionSettings:
        """See `Producer.resolve`: the checkpoint is fetched, and its SHA-256 filled in.

        Raises:
            InputError: an unknown detector, model or setting, or no weights where there must be some.
            OSError, MissingPackage: the checkpoint cannot be had, or a package is missing.
        """
        choose_device("cpu")  # says what to type where torch is missing
        choice = find_detector(config.detector, config.options)
        source = config.weights or ("" if choice.entry.on_features else choice.default_weights())
        if choice.entry.on_features:
            find_model(config.model)
        outside = choice.entry.target == choice.name
        if source == RANDOM or not (source or outside):
            raise InputError(
                f"detections: {config.detector} needs weights: give weights=PATH (random ones would differ from worker "
                "to worker)"
            )
        if not source:
            return config
        return config.model_copy(
            update={"weights": source, "weights_sha256": fetch_weights(source, config.weights_sha256).sha256}
        )

    @classmethod
    def implementation(cls, config: DetectionSettings) -> dict[str, str]:
        """See `Producer.implementation`."""
        choice = find_detector(config.detector, config.options)
        outside = choice.entry.target == choice.name
        name = config.detector.rpartition(":")[2] if outside else config.detector
        found = {"detector": name, "detector_version": str(getattr(choice.offer, "version", 1))}
        for library in _LIBRARIES:
            try:
                found[library] = version(library)
            except PackageNotFoundError:
                continue
        return found

    def _kept(self, found: Detections, height: int, width: int) -> Detections:
        cut = clip_boxes(found.boxes, height, width)
        keep = (found.scores >= self._config.min_score) & (cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1])
        order = np.argsort(-found.scores, kind="stable")
        best = order[keep[order]][: self._config.max_boxes]
        return Detections(boxes=cut[best], scores=found.scores[best], labels=found.labels[best], names=found.names)


def load_detector(config: DetectionSettings) -> Any:
    from trackmill.models.detectors.frame_scaling import FrameScaling

    device = choose_device(config.device)
    choice = find_detector(config.detector, config.options)
    source: str | None = config.weights or None
    if source is not None:
        source = str(fetch_weights(source, config.weights_sha256).path)
    if not choice.entry.on_features:
        return build_detector(config.detector, source or RANDOM, device, **config.options)
    model = find_model(config.model)
    network = build_model(config.model, source, device)
    long_side, short_side = model.frame_size()
    features = model.offer.features(network, FrameScaling(long_side=long_side, short_side=short_side), device)
    return build_detector(config.detector, RANDOM, device, {"features": features}, **config.options)
