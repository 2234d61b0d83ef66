"""Pseudo-negatives: what a detector finds in the annotated frames of a sample and is none of their objects.

Source: ScaleTrack, section 3.3: detections of score >= 0.3, without those of IoU >= 0.5 to a ground-truth box of the
frame. NMS at 0.4 and the 100 best are left to the trainer, who can then vary them without mining again.

They are negatives only, never positives: a data set such as SA-V does not list every object, so one of them may well
be an object, but it is none of those whose identity is known. Of a frame that was not annotated nothing is known, so it
has none; a frame that was annotated and has no object keeps every detection.

The shards hold no ignored regions (MOT's distractors, crowds). Proposals were compared with them when they were mined,
and what was refused then stays refused here; a detector's own boxes cannot be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.shards.visible import visible_boxes
from trackmill.pipeline.sidecars.columns import Column
from trackmill.pipeline.sidecars.producer import CountedRows, Rows
from trackmill.pipeline.sidecars.producers import detector_choice
from trackmill.pipeline.sidecars.producers.detections import DetectionProducer, DetectionSettings
from trackmill.schemas.boxes import Boxes, clip_boxes
from trackmill.schemas.detections import Detections, make_detections
from trackmill.schemas.errors import InputError
from trackmill.schemas.negatives import overlapping_objects

PROPOSALS = "proposals"
"""Said instead of a detector: the proposals that are stored with the sample, such as SAM's."""

REFUSED = "refused when mined"
LOW, OUTSIDE, OVERLAPS = "below the score", "outside the frame", "overlaps an object"
BEYOND = "beyond max_boxes"
KEPT, FRAMES, NOT_ANNOTATED = "kept", "frames", "frames not annotated"


class NegativeSettings(DetectionSettings):
    """Which detector, and which of its detections are pseudo-negatives."""

    detector: str = Field(
        "detic",
        description="What `trackmill track --detections` takes (detic, torchvision:NAME, hf:FOLDER, "
        "my_package.my_module:Class), or proposals: those that are stored with the sample.",
    )
    min_score: float = Field(0.3, ge=0, le=1, description="Detections below it are left out; the paper's value is 0.3.")
    max_iou: float = Field(
        0.5,
        gt=0,
        le=1,
        description="A detection that overlaps an annotated object so much or more is left out; the paper's is 0.5.",
    )
    max_boxes: int = Field(
        1_000_000, ge=1, description="Most negatives of a frame, best first; the trainer takes its 100 best itself."
    )


class NegativeProducer(DetectionProducer):
    """Runs a detector over the annotated frames of a sample, or takes the stored proposals.

    Args:
        config: see `NegativeSettings`.
    """

    name = "negatives"
    version = 1
    Config = NegativeSettings
    columns: tuple[Column, ...] = (
        Column(name="box", dtype="box", unit="px", description="The detection, cut at the border of the frame."),
        Column(name="score", dtype="float32", description="Confidence; the best of a frame comes first."),
        Column(name="label", dtype="string", description="Name of the class; empty for proposals, which have none."),
        Column(name="detector", dtype="string", description="Who found it, such as detic, or the proposer sam/1."),
    )

    def __init__(self, config: NegativeSettings, files: Mapping[str, bytes] | None = None) -> None:
        self._config: NegativeSettings = config
        self._whose = detector_choice.label(config)
        if config.detector != PROPOSALS:
            self._detect = detector_choice.build(config, files or {})

    def rows(self, sample: Sample) -> Rows:
        """See `Producer.rows`; with counts of what was left out, by reason."""
        frames, boxes, scores, labels = [], [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)], []
        annotated = annotated_frames(sample)
        counts = Counter(dict.fromkeys((KEPT, LOW, OUTSIDE, OVERLAPS), 0))
        counts[FRAMES] = len(sample.record.frames)
        counts[NOT_ANNOTATED] = counts[FRAMES] - len(annotated)
        found = self._proposals if self._config.detector == PROPOSALS else self._detections
        for number, detections in found(sample, annotated, counts):
            kept = self._negatives(sample, number, detections, counts)
            frames += [number] * len(kept)
            boxes.append(kept.boxes)
            scores.append(kept.scores)
            labels += [kept.names[i] if kept.names else str(i) for i in kept.labels.tolist()]
        whose = sample.record.proposer if self._config.detector == PROPOSALS else self._whose
        rows = {
            "frame": np.array(frames, np.int32),
            "box": np.concatenate(boxes),
            "score": np.concatenate(scores),
            "label": labels,
            "detector": [whose] * len(frames),
        }
        return CountedRows(rows, counts)

    @classmethod
    def gains_from_gpu(cls, config: DetectionSettings) -> bool:
        """See `Producer.gains_from_gpu`."""
        return config.detector != PROPOSALS

    @classmethod
    def resolve(cls, config: DetectionSettings) -> DetectionSettings:
        """See `Producer.resolve`."""
        if config.detector == "detic" and not config.weights:
            raise InputError(
                "negatives: detic needs a checkpoint: --weights URL, or --negatives-weights URL while mining"
            )
        if config.detector != PROPOSALS:
            return super().resolve(config)
        for key in ("weights", "classes", "text_weights", "options"):
            if getattr(config, key):
                raise InputError(f"negatives: {PROPOSALS} are stored with the samples; leave out {key}")
        return config

    @classmethod
    def implementation(cls, config: DetectionSettings) -> dict[str, str]:
        """See `Producer.implementation`."""
        return {"detector": PROPOSALS} if config.detector == PROPOSALS else super().implementation(config)

    @classmethod
    def shared_files(cls, config: DetectionSettings, stored: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """See `Producer.shared_files`."""
        return {} if config.detector == PROPOSALS else super().shared_files(config, stored)

    @classmethod
    def build(cls, config: DetectionSettings, files: Mapping[str, bytes]) -> NegativeProducer:
        """See `Producer.build`."""
        assert isinstance(config, NegativeSettings)
        return cls(config, files)

    def _detections(self, sample: Sample, numbers: list[int], counts: Counter[str]) -> Iterator[tuple[int, Detections]]:
        """The detector's, a batch of frames at a time. All frames of a sample are equally large."""
        for begin in range(0, len(numbers), self._config.batch_size):
            batch = numbers[begin : begin + self._config.batch_size]
            yield from zip(batch, self._detect(sample, batch), strict=True)

    def _proposals(self, sample: Sample, numbers: list[int], counts: Counter[str]) -> Iterator[tuple[int, Detections]]:
        """The stored ones that were negatives when they were mined; mining knew of ignored regions, shards do not."""
        for number in numbers:
            frame = sample.record.frames[number]
            own = frame.proposals
            boxes = np.array(own.boxes, np.float32).reshape(-1, 4)
            refused = np.ones(len(boxes), bool)
            refused[own.negatives] = False
            # What overlaps an object is counted as such, whoever refused it first.
            near = overlapping_objects(boxes, visible_boxes(sample.record, number), self._config.max_iou)
            counts[REFUSED] += int((refused & ~near).sum())
            kept = ~refused | near
            scores = np.array(own.scores, np.float32)[kept]
            yield number, make_detections(boxes[kept], scores, np.zeros(len(scores)), ("",))

    @classmethod
    def wrong_rows(cls, config: DetectionSettings, rows: Rows, objects: Sequence[Boxes | None]) -> Iterator[str]:
        """See `Producer.wrong_rows`: the rule is applied once more to the rows as they lie there."""
        assert isinstance(config, NegativeSettings)
        frames = rows["frame"]
        for number in np.unique(frames).tolist():
            known = objects[number] if 0 <= number < len(objects) else None
            own = np.flatnonzero(frames == number)
            if known is None:
                yield f"has {len(own)} rows about frame {number}, of which the data set says nothing"
                continue
            for row in own[overlapping_objects(rows["box"][own], known, config.max_iou)][:1]:
                box = rows["box"][row].tolist()
                yield f"box {box} of frame {number} overlaps an annotated object by {config.max_iou} or more"
            for row in own[rows["score"][own] < np.float32(config.min_score)][:1]:
                yield f"a score of frame {number}, {rows['score'][row]:g}, is below {config.min_score}"

    def _negatives(self, sample: Sample, number: int, found: Detections, counts: Counter[str]) -> Detections:
        stored = sample.record.stored
        # The rule is applied to boxes as they are stored: cut at the border.
        boxes = clip_boxes(found.boxes, stored.height, stored.width)
        low = found.scores < np.float32(self._config.min_score)
        outside = ~low & ((boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1]))
        near = ~low & ~outside & overlapping_objects(boxes, visible_boxes(sample.record, number), self._config.max_iou)
        for reason, dropped in ((LOW, low), (OUTSIDE, outside), (OVERLAPS, near)):
            counts[reason] += int(dropped.sum())
        order = np.argsort(-found.scores, kind="stable")
        kept: NDArray[np.int64] = order[~(low | outside | near)[order]][: self._config.max_boxes]
        counts[KEPT] += len(kept)
        if beyond := int((~(low | outside | near)).sum()) - len(kept):
            counts[BEYOND] += beyond
        return Detections(boxes=boxes[kept], scores=found.scores[kept], labels=found.labels[kept], names=found.names)


def annotated_frames(sample: Sample) -> list[int]:
    """Positions of the frames of which the data set lists the objects, were it none."""
    if not sample.record.origin.annotated:
        return []
    return [number for number, frame in enumerate(sample.record.frames) if frame.objects is not None]
