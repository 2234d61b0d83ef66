"""Detections: what any detector of the registry finds in the stored frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field

from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.sidecars.columns import Column
from trackmill.pipeline.sidecars.producer import Producer, Rows
from trackmill.pipeline.sidecars.producers import detector_choice
from trackmill.schemas.boxes import clip_boxes
from trackmill.schemas.config import Settings
from trackmill.schemas.detections import Detections


class DetectionSettings(Settings):
    """Which detector, and which of its detections are kept."""

    detector: str = Field(
        "torchvision:fasterrcnn_resnet50_fpn_v2",
        description="What `trackmill track --detections` takes: torchvision:NAME, detic:WEIGHTS, hf:MODEL_OR_FOLDER, "
        "masa (its own proposals), my_package.my_module:Class; or file:URL, a COCO JSON or a folder of MOTChallenge's.",
    )
    model: str = Field(
        "masa_r50", description="The model whose proposals they are (masa), or that has the detector inside (detic)."
    )
    weights: str = Field(
        "", description="Path or URL of the checkpoint, for masa the model's; empty: published ones, if there are some."
    )
    weights_sha256: str = Field("", description="What the file or folder must have; filled in where it is empty.")
    classes: str | tuple[str, ...] = Field(
        "", description="What to look for, as `trackmill track --classes` takes it; empty: all the detector knows."
    )
    text_weights: str = Field("", description="Of CLIP, which turns names of classes into vectors, for detic.")
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Settings of the detector itself, and nms_iou, class_agnostic_nms, max_boxes of any detector.",
    )
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
    # Classes are names in `options`, or a vocabulary that workers share, by its SHA-256.
    not_in_fingerprint = frozenset({"detector", "weights", "device", "classes", "text_weights"})
    left_out_at_default = frozenset({"classes", "text_weights"})
    Config = DetectionSettings
    columns: tuple[Column, ...] = (
        Column(name="box", dtype="box", unit="px", description="The detection, cut at the border of the frame."),
        Column(name="score", dtype="float32", description="Confidence; the best of a frame comes first."),
        Column(name="label", dtype="string", description="Name of the class."),
    )

    def __init__(self, config: DetectionSettings, files: Mapping[str, bytes] | None = None) -> None:
        self._config = config
        self._detect = detector_choice.build(config, files or {})

    def rows(self, sample: Sample) -> Rows:
        """See `Producer.rows`; frames are decoded a batch at a time."""
        count = len(sample.record.frames)
        height, width = sample.record.stored.height, sample.record.stored.width
        frames, boxes, scores, labels = [], [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)], []
        for begin in range(0, count, self._config.batch_size):
            numbers = range(begin, min(begin + self._config.batch_size, count))
            for number, found in zip(numbers, self._detect(sample, numbers), strict=True):
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
        """See `Producer.resolve`: files are fetched, and their SHA-256 and the names of classes filled in.

        Raises:
            InputError: an unknown detector, model, class or setting, or no weights where there must be some.
            OSError, MissingPackage: a file cannot be had, or a package is missing.
        """
        return config.model_copy(update=detector_choice.resolve(config))

    @classmethod
    def implementation(cls, config: DetectionSettings) -> dict[str, str]:
        """See `Producer.implementation`."""
        return detector_choice.implementation(config)

    @classmethod
    def shared_files(cls, config: DetectionSettings, stored: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """See `Producer.shared_files`: the vocabulary, if the detector compares vectors."""
        return detector_choice.shared_files(config, stored)

    @classmethod
    def build(cls, config: DetectionSettings, files: Mapping[str, bytes]) -> DetectionProducer:
        """See `Producer.build`."""
        return cls(config, files)

    def _kept(self, found: Detections, height: int, width: int) -> Detections:
        cut = clip_boxes(found.boxes, height, width)
        keep = (found.scores >= self._config.min_score) & (cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1])
        order = np.argsort(-found.scores, kind="stable")
        best = order[keep[order]][: self._config.max_boxes]
        return Detections(boxes=cut[best], scores=found.scores[best], labels=found.labels[best], names=found.names)
