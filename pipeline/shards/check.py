"""Everything that must hold inside one sample: pixels, hashes, counts, boxes and masks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from trackmill.pipeline.shards.decode import Sample, decode_jpeg, parse_sample
from trackmill.pipeline.shards.encode import count_sample
from trackmill.pipeline.shards.stream import BadShardMember, RawSample
from trackmill.pipeline.shards.tar import raw_checksum
from trackmill.pipeline.shards.totals import COUNTS
from trackmill.pipeline.shards.visible import visible_boxes
from trackmill.schemas.boxes import MAX_REACH, Boxes
from trackmill.schemas.masks import CroppedMask, decode_mask
from trackmill.schemas.names import shortened
from trackmill.schemas.receipt import ReceiptRow
from trackmill.schemas.sample import FrameRecord, SampleRecord, Stored

_LONGEST_PART = 300
"""Characters of a fault's place, and of what is wrong: both may quote what a damaged file holds."""
_ROUNDING = 0.01
"""Boxes are stored to a hundredth of a pixel, so one may end that much past the border."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: in which shard (or receipt), at which member (may be empty), and what."""

    shard: str
    member: str
    what: str

    def __str__(self) -> str:
        return ": ".join(shortened(part, _LONGEST_PART) for part in (self.shard, self.member, self.what) if part)


class SampleShape(NamedTuple):
    """What tables beside the shards are compared with.

    Args:
        frames: of the sample.
        height, width: of each, in pixels.
        objects: of each frame the boxes (G, 4) of its annotated objects, cut at its border; None where nothing is known
            of it.
    """

    frames: int
    height: int
    width: int
    objects: tuple[Boxes | None, ...] = ()


def shape_of(record: SampleRecord) -> SampleShape:
    """See `SampleShape`."""
    objects = tuple(
        visible_boxes(record, number) if record.origin.annotated and frame.objects is not None else None
        for number, frame in enumerate(record.frames)
    )
    return SampleShape(len(record.frames), record.stored.height, record.stored.width, objects)


def check_sample(raw: RawSample, row: ReceiptRow | None) -> tuple[list[Fault], SampleRecord | None]:
    """Look at every byte of a sample.

    Args:
        raw: its members as they lie in the shard.
        row: what its receipt says; None where there is no receipt.

    Returns:
        Faults, and the record (None where it cannot be read).
    """
    try:
        sample = parse_sample(raw)
    except BadShardMember as error:
        return [Fault(error.shard, error.member, error.what)], None
    faults = list(_check_frames(sample))
    faults += _check_masks(sample)
    if row is not None:
        faults += _check_row(raw, sample, row)
    return faults, sample.record


def _check_frames(sample: Sample) -> Iterator[Fault]:
    stored = sample.record.stored
    for frame, jpeg in zip(sample.record.frames, sample.jpegs):
        if hashlib.sha256(jpeg).hexdigest() != frame.sha256:
            yield Fault(sample.shard, frame.member, "its SHA-256 is not the recorded one: damaged")
        try:
            decode_jpeg(jpeg, sample.shard, frame.member, stored.height, stored.width)
        except BadShardMember as error:
            yield Fault(error.shard, error.member, error.what)
        for name, boxes, scores in _box_lists(frame):
            amodal = name == "objects" and sample.record.origin.amodal
            if bad := _bad_amodal_box(boxes, stored) if amodal else _bad_box(boxes, stored):
                yield Fault(sample.shard, f"{sample.key}.json", f"{frame.member}: box {bad} of {name}")
            if not all(0 <= score <= 1 for score in scores):
                yield Fault(sample.shard, f"{sample.key}.json", f"{frame.member}: a score of {name} is not in 0..1")


def _box_lists(frame: FrameRecord) -> list[tuple[str, list[list[float]], list[float]]]:
    lists = [("proposals", frame.proposals.boxes, frame.proposals.scores)]
    if frame.objects is not None:
        lists.append(("objects", frame.objects.boxes, frame.objects.scores))
    return lists


def _bad_box(boxes: list[list[float]], stored: Stored) -> str:
    # Written so that NaN, for which every comparison is false, counts as bad.
    right, low = stored.width + _ROUNDING, stored.height + _ROUNDING
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        if not (-_ROUNDING <= x0 <= right and -_ROUNDING <= y0 <= low and x1 <= right and y1 <= low):
            return f"{number} leaves its frame of {stored.height} x {stored.width}"
        if not (x1 > x0 and y1 > y0):
            return f"{number} has no area"
    return ""


def _bad_amodal_box(boxes: list[list[float]], stored: Stored) -> str:
    right, low = stored.width + _ROUNDING, stored.height + _ROUNDING
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        if not (x1 > x0 and y1 > y0):
            return f"{number} has no area"
        begins = -MAX_REACH <= x0 <= right and -MAX_REACH <= y0 <= low
        if not (begins and -_ROUNDING <= x1 <= MAX_REACH and -_ROUNDING <= y1 <= MAX_REACH):
            return f"{number} lies outside of its frame of {stored.height} x {stored.width}"
    return ""


def _check_masks(sample: Sample) -> Iterator[Fault]:
    member = f"{sample.key}.masks.json"
    try:
        assert sample.masks is None or sample.masks_json is not None
    except BadShardMember as error:
        yield Fault(error.shard, error.member, error.what)
        return
    for number, frame in enumerate(sample.record.frames):
        proposals = sample.proposal_masks(number)
        same = sample.masks is not None and sample.masks.frames[number].proposals is None
        lists: list[tuple[str, Sequence[CroppedMask | None], list[int] | None]] = [
            ("proposals", proposals, frame.proposals.areas)
        ]
        if not same:  # otherwise the objects are the proposals, and are looked at already
            lists.append(("objects", sample.objects_masks(number), None))
        for name, masks, areas in lists:
            if what := _bad_mask(masks, areas, sample.record.stored):
                yield Fault(sample.shard, member, f"{frame.member}: mask {what} ({name})")


def _bad_mask(masks: Sequence[CroppedMask | None], areas: list[int] | None, stored: Stored) -> str:
    for number, mask in enumerate(masks):
        if mask is None:
            continue
        try:
            area = int(decode_mask(mask, stored.height, stored.width).sum())
        except ValueError as error:
            return f"{number} {error}"
        if areas is not None and area != areas[number]:
            return f"{number} has {area} pixels, the record says {areas[number]}"
    return ""


def _check_row(raw: RawSample, sample: Sample, row: ReceiptRow) -> Iterator[Fault]:
    member = f"{sample.key}.json"
    record = sample.record
    counts = count_sample(record)
    for name in COUNTS:
        count, recorded = getattr(counts, name), getattr(row, name)
        if count != recorded:
            yield Fault(sample.shard, member, f"has {count} {name}, its receipt says {recorded}")
    if row.mean_score and row.mean_score != counts.mean_score:
        scores = f"{counts.mean_score}, its receipt says {row.mean_score}"
        yield Fault(sample.shard, member, f"its proposals have the mean score {scores}")
    if record.origin.source_id != row.source_id:
        yield Fault(sample.shard, member, f"comes from {record.origin.source_id!r}, its receipt says {row.source_id!r}")
    if record.origin.license != row.license:
        yield Fault(sample.shard, member, f"has licence {record.origin.license!r}, its receipt says {row.license!r}")
    if row.checksum and row.checksum != raw_checksum(raw.members):
        yield Fault(sample.shard, member, "its checksum is not that of its receipt")
    if (sample.offset, sample.size) != (row.offset, row.size):
        place, recorded = (
            f"{size} bytes at {offset}" for offset, size in ((sample.offset, sample.size), (row.offset, row.size))
        )
        yield Fault(sample.shard, member, f"lies in {place}, its receipt says {recorded}")
