"""Samples as plain values for the page: what is drawn on each frame, and where the pixels came from.

All texts are fit to be shown: without credentials and control characters, of bounded length. The page puts them into
the document as text and never as HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trackmill.pipeline.inspect.overlay import MoreBoxes
from trackmill.pipeline.inspect.thumbnails import shown
from trackmill.pipeline.media.drawing.palette import css, identity_colour
from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.storage.credentials import redact
from trackmill.schemas.keys import receipt_name
from trackmill.schemas.masks import CroppedMask, decode_mask
from trackmill.schemas.receipt import ReceiptRow
from trackmill.schemas.sample import FrameRecord

MAX_BOXES = 1000
"""Of one kind on a frame, the best ones; counts are of all."""
MAX_MASKS = 300


def row_values(number: int, row: ReceiptRow) -> dict[str, Any]:
    """A row of the list; `number` is its place, by which its sample is asked for."""
    return {
        "number": number,
        "key": row.key,
        "uri": shown(redact(row.uri)),
        "status": row.status,
        "reason": shown(row.reason),
        "error_class": shown(row.error_class),
        "frames": row.frames,
        "objects": row.objects,
        "proposals": row.proposals,
        "negatives": row.negatives,
        "refused": row.refused,
        "mean_score": row.mean_score,
        "license": shown(row.license),
        "attempts": row.attempts,
    }


def sample_values(sample: Sample, only_frame: int | None = None) -> dict[str, Any]:
    """A sample with the boxes of all frames, or of one of them."""
    record = sample.record
    numbers = range(len(record.frames)) if only_frame is None else [only_frame]
    return {
        "key": record.key,
        "kind": record.kind,
        "width": record.stored.width,
        "height": record.stored.height,
        "num_frames": len(record.frames),
        "fps": record.clip.label_fps if record.clip else 0,
        "has_masks": record.has_masks,
        "frames": {str(number): _frame_values(record.frames[number]) for number in numbers},
    }


def _frame_values(frame: FrameRecord) -> dict[str, Any]:
    proposals, objects = frame.proposals, frame.objects
    negatives = set(proposals.negatives)
    kept = [i for i in range(len(proposals.boxes)) if i not in negatives]

    def found(places: list[int]) -> list[dict[str, Any]]:
        return [
            {
                "box": _short(proposals.boxes[i]),
                "score": round(proposals.scores[i], 4),
                "mask": i,
                "title": f"{i}: score {proposals.scores[i]:.2f}, {proposals.areas[i]:,} pixels",
            }
            for i in places[:MAX_BOXES]
        ]

    layers: dict[str, Any] = {
        "proposals": found(kept),
        "negatives": found(proposals.negatives),
        "refused": [
            {"box": _short(box), "title": f"refused: {shown(reason)}"}
            for box, reason in list(zip(proposals.refused_boxes, proposals.refused_reasons))[:MAX_BOXES]
        ],
        "objects": [
            {
                "box": _short(box),
                "score": round(score, 4),
                "mask": number,
                "id": str(identity),
                "colour": css(identity_colour(identity)),
                "title": f"object {identity}: score {score:.2f}",
            }
            for number, (box, identity, score) in enumerate(
                list(zip(objects.boxes, objects.ids, objects.scores))[:MAX_BOXES]
            )
        ]
        if objects
        else [],
    }
    return {
        "index": frame.index,
        "time_s": frame.time_s,
        "annotated": objects is not None,
        "refused": {shown(reason): count for reason, count in proposals.refused.items()},
        "layers": layers,
    }


def sidecar_values(found: MoreBoxes) -> list[dict[str, Any]]:
    """The boxes of a sidecar on one frame; `id` where it has identities: boxes of one id are a track."""
    identities: Sequence[int | None] = found.identities or [None] * len(found.boxes)
    tags = found.tags or [""] * len(found.boxes)
    return [
        {
            "box": _short(box),
            "colour": css(colour),
            "title": shown(title),
            "tag": shown(tag),
            "id": None if identity is None else str(identity),
        }
        for box, colour, title, tag, identity in list(
            zip(found.boxes.tolist(), found.colours, found.titles, tags, identities)
        )[:MAX_BOXES]
    ]


def mask_values(sample: Sample, frame: int) -> dict[str, list[dict[str, Any] | None]]:
    """Masks of the objects and of the proposals of a frame, run lengths as they are stored.

    Raises:
        BadShard: the masks are damaged.
        ValueError: a mask leaves the frame, or does not fill its crop.
    """
    stored = sample.record.stored

    def values(masks: list[CroppedMask | None]) -> list[dict[str, Any] | None]:
        found: list[dict[str, Any] | None] = []
        for mask in masks[:MAX_MASKS]:
            if mask is None:
                found.append(None)
                continue
            decode_mask(mask, stored.height, stored.width)  # the page trusts what it gets
            found.append({"x": mask.x, "y": mask.y, "w": mask.width, "h": mask.height, "counts": mask.counts})
        return found

    return {"objects": values(sample.objects_masks(frame)), "proposals": values(sample.proposal_masks(frame))}


def lineage(sample: Sample, row: ReceiptRow, url: str) -> list[tuple[str, str, str]]:
    """(heading, name, value) of all that is known of where a sample came from, in the order of its way.

    Args:
        sample: as read.
        row: of its receipt.
        url: of the data set, fit to be shown.
    """
    record = sample.record
    origin, stored, clip = record.origin, record.stored, record.clip
    begin = origin.byte_range
    found = [
        ("origin", "URI", redact(origin.uri)),
        ("origin", "byte range", f"{begin[1]:,} bytes at {begin[0]:,}" if begin else "the whole file"),
        ("origin", "SHA-256", origin.sha256),
        ("origin", "source", f"{origin.source}, item {origin.source_id}"),
        ("origin", "size", f"{origin.width} × {origin.height}"),
        ("origin", "licence", origin.license),
        ("conversion", "conversions", ", ".join(origin.conversions) or "none"),
        ("conversion", "stored size", f"{stored.width} × {stored.height} (scale {stored.scale:g})"),
        ("conversion", "proposer", record.proposer),
        ("conversion", "fingerprint", record.fingerprint),
    ]
    if origin.fps is not None:
        found.insert(5, ("origin", "video", f"{origin.fps:g} frames a second, {origin.num_frames} frames"))
    if clip:
        found.append(("conversion", "clip", f"every {clip.stride}. frame, {clip.label_fps:g} a second"))
    found += [
        ("shard", "file", f"{url}/shards/{sample.shard}" if row.source_id else sample.shard),
        ("shard", "byte range", f"{sample.size:,} bytes at {sample.offset:,}"),
        ("shard", "frames", ", ".join(frame.member for frame in record.frames[:3]) + _more(len(record.frames) - 3)),
        ("shard", "SHA-256 of the first frame", record.frames[0].sha256),
    ]
    if row.source_id:  # tars alone have no receipts
        checksum = f"{row.checksum & _64_BITS:016x}" if row.checksum else "not recorded"
        found += [
            ("receipt", "file", f"receipts/{receipt_name(row.unit)}, position {row.position}"),
            ("receipt", "checksum (XXH3-64)", checksum),
            ("receipt", "mean score of the proposals", _mean_score(row)),
            ("receipt", "attempts", f"{row.attempts}, {row.seconds:.2f} s"),
        ]
    return [(heading, name, shown(value)) for heading, name, value in found]


def _mean_score(row: ReceiptRow) -> str:
    if row.mean_score:
        return f"{row.mean_score:.4f}"
    return "0, or not recorded" if row.proposals else "none"


_64_BITS = (1 << 64) - 1


def _more(count: int) -> str:
    return f" … and {count:,} more" if count > 0 else ""


def _short(box: list[float]) -> list[float]:
    return [round(value, 1) for value in box]
