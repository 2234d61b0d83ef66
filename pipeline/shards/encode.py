"""One mined item as the members of a sample: JPEGs first, masks next, the JSON that makes it complete last."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from trackmill.schemas.boxes import Boxes
from trackmill.schemas.keys import frame_member
from trackmill.schemas.masks import CroppedMask, mask_area
from trackmill.schemas.media import Annotations, Frame, Media, ProposalSet, WorkItem
from trackmill.schemas.sample import (
    Clip,
    FrameMasks,
    FrameRecord,
    MaskRecord,
    Objects,
    Origin,
    Proposals,
    SampleMasks,
    SampleRecord,
    Stored,
)

BOX_DECIMALS = 2
"""Boxes are stored to a hundredth of a pixel."""
SCORE_DECIMALS = 4


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """Counts over one sample, and the mean score of its proposals, for its receipt."""

    frames: int
    objects: int
    proposals: int
    negatives: int
    refused: int
    mean_score: float


@dataclass(frozen=True, slots=True)
class Stamp:
    """What every sample of a run carries: the proposer's name and version, the run's fingerprint, and the limits."""

    proposer: str
    fingerprint: str
    longest_side: int
    frames_per_clip: int


def encode_sample(
    item: WorkItem,
    media: Media,
    proposals: Sequence[ProposalSet],
    negatives: Sequence[Sequence[int]],
    stamp: Stamp,
    encode_jpeg: Callable[[Frame], bytes],
) -> tuple[list[tuple[str, bytes]], SampleCounts]:
    """Turn one item into tar members.

    Args:
        item, media: as planned and as read; annotations in pixels of the stored frames.
        proposals, negatives: one entry per frame; a negative is an index into its frame's proposals.
        stamp: see `Stamp`.
        encode_jpeg: the JPEG bytes of a frame.

    Returns:
        Members in the order they must be written, and the counts.
    """
    assert len(media.frames) == len(proposals) == len(negatives)
    members, records, masks = [], [], []
    for position, (frame, own, negative) in enumerate(zip(media.frames, proposals, negatives)):
        jpeg = frame.encoded if frame.encoded is not None else encode_jpeg(frame)
        _check_lengths(frame, own)
        name = frame_member(item.key, position, len(media.frames), media.kind)
        members.append((name, jpeg))
        records.append(_frame_record(name, jpeg, frame, own, negative))
        masks.append(_frame_masks(frame, own))
    has_masks = any(any(m.objects) or any(m.proposals or ()) for m in masks)
    if has_masks:
        members.append((f"{item.key}.masks.json", _json(SampleMasks(key=item.key, frames=masks))))
    record = SampleRecord(
        key=item.key,
        kind="image" if media.kind == "image" else "clip",
        origin=_origin(item, media),
        stored=_stored(media, stamp),
        clip=_clip(item, media, stamp),
        proposer=stamp.proposer,
        fingerprint=stamp.fingerprint,
        frames=records,
        has_masks=has_masks,
    )
    members.append((f"{item.key}.json", _json(record)))
    return members, count_sample(record)


def count_sample(record: SampleRecord) -> SampleCounts:
    """What a receipt says of a sample."""
    proposals = [frame.proposals for frame in record.frames]
    scores = [score for each in proposals for score in each.scores]
    try:
        total = math.fsum(scores)
    except (OverflowError, ValueError):  # of a damaged sample, which is told elsewhere
        total = math.nan
    return SampleCounts(
        frames=len(record.frames),
        objects=sum(len(frame.objects.boxes) for frame in record.frames if frame.objects),
        proposals=sum(len(each.boxes) for each in proposals),
        negatives=sum(len(each.negatives) for each in proposals),
        refused=sum(sum(each.refused.values()) for each in proposals),
        mean_score=round(total / len(scores), SCORE_DECIMALS) if scores else 0.0,
    )


def _check_lengths(frame: Frame, proposals: ProposalSet) -> None:
    assert len(proposals.boxes) == len(proposals.scores) == len(proposals.masks), "a proposer's lists differ in length"
    notes = frame.annotations
    if notes is not None:
        same = len(notes.boxes) == len(notes.ids) == len(notes.scores) == len(notes.masks)
        assert same, "a source's annotation lists differ in length"


def _json(record: SampleRecord | SampleMasks) -> bytes:
    values = record.model_dump(mode="json")
    if "origin" in values and not values["origin"]["amodal"]:
        del values["origin"]["amodal"]  # younger than data sets whose units may be mined again, to the same bytes
    return orjson.dumps(values, option=orjson.OPT_SORT_KEYS)


def _boxes(boxes: Boxes) -> list[list[float]]:
    rounded: list[list[float]] = np.round(np.asarray(boxes, np.float64).reshape(-1, 4), BOX_DECIMALS).tolist()
    return rounded


def _scores(scores: Sequence[float] | np.ndarray) -> list[float]:
    rounded: list[float] = np.round(np.asarray(scores, np.float64), SCORE_DECIMALS).tolist()
    return rounded


def _area(mask: CroppedMask | None, box: np.ndarray) -> int:
    if mask is not None:
        return mask_area(mask)
    return round(float((box[2] - box[0]) * (box[3] - box[1])))


def _frame_record(name: str, jpeg: bytes, frame: Frame, proposals: ProposalSet, negative: Sequence[int]) -> FrameRecord:
    objects = None
    if frame.annotations is not None:
        notes: Annotations = frame.annotations
        objects = Objects(boxes=_boxes(notes.boxes), ids=list(notes.ids), scores=_scores(notes.scores))
    return FrameRecord(
        member=name,
        index=frame.index,
        time_s=None if frame.time_s is None else round(frame.time_s, 6),
        sha256=hashlib.sha256(jpeg).hexdigest(),
        objects=objects,
        proposals=Proposals(
            boxes=_boxes(proposals.boxes),
            scores=_scores(proposals.scores),
            areas=[_area(mask, box) for mask, box in zip(proposals.masks, proposals.boxes)],
            negatives=[int(i) for i in negative],
            refused={reason: int(count) for reason, count in sorted(proposals.refused.items())},
            refused_boxes=_boxes(proposals.refused_boxes),
            refused_reasons=list(proposals.refused_reasons),
        ),
    )


def _mask_record(mask: CroppedMask | None) -> MaskRecord | None:
    if mask is None:
        return None
    return MaskRecord(x=mask.x, y=mask.y, height=mask.height, width=mask.width, counts=mask.counts)


def _frame_masks(frame: Frame, proposals: ProposalSet) -> FrameMasks:
    objects = frame.annotations.masks if frame.annotations else []
    return FrameMasks(
        objects=[_mask_record(mask) for mask in objects],
        proposals=None if proposals.from_objects else [_mask_record(mask) for mask in proposals.masks],
    )


def _origin(item: WorkItem, media: Media) -> Origin:
    return Origin(
        source=item.source,
        source_id=item.source_id,
        uri=item.uri,
        byte_range=[item.offset, item.length] if item.offset >= 0 else None,
        sha256=media.sha256,
        height=media.original_height,
        width=media.original_width,
        fps=media.fps,
        num_frames=media.num_source_frames,
        license=media.license,
        annotated=media.annotated,
        conversions=list(media.conversions),
        amodal=media.amodal,
    )


def _stored(media: Media, stamp: Stamp) -> Stored:
    height, width = media.frames[0].image.shape[:2]
    scale = max(height, width) / max(media.original_height, media.original_width)
    return Stored(height=height, width=width, scale=scale, longest_side=stamp.longest_side)


def _clip(item: WorkItem, media: Media, stamp: Stamp) -> Clip | None:
    if media.kind == "image":
        return None
    fps = media.fps or 1.0
    return Clip(frames_per_clip=stamp.frames_per_clip, stride=item.stride, label_fps=round(fps / item.stride, 6))
