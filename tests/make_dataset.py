"""A small mined data set for tests: pictures, a clip, objects, proposals, negatives, refusals, one row of each status.

Made through the same writer, encoder and receipts as a mining run; the same arguments give the same bytes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from tests.make_media import jpeg_bytes, make_scene
from trackmill.pipeline.shards.encode import Stamp, encode_sample
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.manifest import write_manifest
from trackmill.pipeline.shards.receipts import to_parquet, write_receipt
from trackmill.pipeline.shards.writer import ShardWriter
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.schemas.boxes import Boxes
from trackmill.schemas.keys import sample_key
from trackmill.schemas.masks import CroppedMask, crop_mask, mask_box
from trackmill.schemas.media import Annotations, Frame, Media, ProposalSet, WorkItem
from trackmill.schemas.receipt import ReceiptRow, ShardInfo

FINGERPRINT = "f" * 16
CONFIG: dict[str, Any] = {
    "source": "auto",
    "proposer": "graph",
    "graph": {"min_area": 0.001},
    "negatives": {"max_iou": 0.5},
    "fingerprint": FINGERPRINT,
}
DOCUMENT = {"fingerprint": FINGERPRINT, "parts": {"negatives": CONFIG["negatives"]}, "config": CONFIG}
"""What a mining run writes as `config.json`."""
STAMP = Stamp(proposer="graph/1", fingerprint=FINGERPRINT, longest_side=1024, frames_per_clip=32)


def make_item(source: str, name: str, uri: str = "", frames: int = 1) -> WorkItem:
    """A planned item whose id is its URI."""
    uri = uri or f"/raw/{source}/{name}"
    return WorkItem(source=source, source_id=uri, key=sample_key(source, name, uri), uri=uri, frames=frames, stride=4)


def make_media(seed: int, frames: int = 1, height: int = 48, width: int = 64, license: str = "CC BY 4.0") -> Media:
    """A scene of three ellipses of which two are annotated; with more than one frame, a clip in which they move."""
    made = []
    for step in range(frames):
        image, masks = make_scene(height, width, seed, 3 * step)
        crops = _crops(masks[:2])
        notes = Annotations(boxes=_boxes(crops), ids=[7, 12][: len(crops)], scores=[1.0] * len(crops), masks=crops)
        time_s = step / 6 if frames > 1 else None
        made.append(Frame(image=image, index=4 * step, time_s=time_s, annotations=notes))
    return Media(
        kind="clip" if frames > 1 else "image",
        frames=made,
        original_height=2 * height,
        original_width=2 * width,
        sha256=f"{seed:064x}",
        num_bytes=1000,
        annotated=True,
        fps=24.0 if frames > 1 else None,
        num_source_frames=96 if frames > 1 else None,
        license=license,
    )


def make_proposals(seed: int, step: int, height: int = 48, width: int = 64) -> tuple[ProposalSet, list[int]]:
    """All three ellipses and a near copy of the last one; the last two overlap no annotated object by its count."""
    _, masks = make_scene(height, width, seed, 3 * step)
    crops = _crops([*masks, masks[-1]])
    proposals = ProposalSet(
        boxes=_boxes(crops),
        scores=np.linspace(0.9, 0.4, len(crops), dtype=np.float32),
        masks=crops,
        refused={"small": 5, "unstable": 2},
        refused_boxes=np.array([[2, 2, 9, 8], [20, 30, 28, 40]], np.float32),
        refused_reasons=["small", "unstable"],
    )
    return proposals, list(range(2, len(crops)))


def make_row(item: WorkItem, unit: int, position: int, **values: object) -> ReceiptRow:
    """The receipt row of an item."""
    place = {"source_id": item.source_id, "key": item.key, "uri": item.uri, "unit": unit, "position": position}
    return ReceiptRow(**{"status": "ok", **place, **values})  # type: ignore[arg-type]


def write_samples(
    layout: Layout, unit: int, samples: list[tuple[WorkItem, Media, int]], first_position: int = 0, **limits: int
) -> tuple[list[ReceiptRow], list[ShardInfo]]:
    """Shards of a unit, each sample given as (item, media, seed); and the rows for its receipt."""
    rows = []
    writer = ShardWriter(layout, unit, limits.get("max_bytes", 1 << 20), limits.get("max_samples", 100))
    with writer:
        for position, (item, media, seed) in enumerate(samples, first_position):
            height, width = media.frames[0].image.shape[:2]
            found = [make_proposals(seed, step, height, width) for step in range(len(media.frames))]
            members, counts = encode_sample(
                item, media, [p for p, _ in found], [n for _, n in found], STAMP, lambda frame: jpeg_bytes(frame.image)
            )
            shard, offset, size = writer.write(members)
            place = {"shard": shard, "offset": offset, "size": size, "checksum": writer.checksum}
            rows.append(make_row(item, unit, position, license=media.license, **place, **dataclasses.asdict(counts)))
    return rows, writer.shards


def make_dataset(
    root: str,
    num_images: int = 4,
    num_frames: int = 10,
    height: int = 48,
    width: int = 64,
    uri_prefix: str = "/raw/images",
    reason: str = "cut off after 100 of 200 bytes",
) -> Layout:
    """A complete data set of two units under `root`, any URL.

    Unit 0: `num_images` pictures in shards of three, one quarantined item with `reason`.
    Unit 1: one clip of `num_frames`, one skipped item.
    """
    layout = Layout(root)
    pictures = [make_item("images", f"pic{i}", f"{uri_prefix}/pic{i}.jpg") for i in range(num_images)]
    broken = make_item("images", "broken", f"{uri_prefix}/broken.jpg")
    video, empty = make_item("videos", "bikes-c000", frames=num_frames), make_item("videos", "bikes-c001")

    samples = [(item, make_media(seed, 1, height, width), seed) for seed, item in enumerate(pictures)]
    rows, shards = write_samples(layout, 0, samples, max_samples=3)
    failure = {"status": "quarantined", "reason": reason, "error_class": "TruncatedMedia"}
    rows.append(make_row(broken, 0, num_images, **failure))
    write_receipt(layout, 0, rows, shards, FINGERPRINT)

    rows, shards = write_samples(layout, 1, [(video, make_media(50, num_frames, height, width, "unknown"), 50)])
    rows.append(make_row(empty, 1, 1, status="skipped", reason="past the end of the video"))
    write_receipt(layout, 1, rows, shards, FINGERPRINT)

    publish_bytes(layout.config, orjson.dumps(DOCUMENT))
    planned = [(item, 0) for item in [*pictures, broken]] + [(item, 1) for item in (video, empty)]
    write_plan(layout, planned)
    write_manifest(layout)
    return layout


def write_plan(layout: Layout, planned: list[tuple[WorkItem, int]], name: str = "plan-000.parquet") -> None:
    """A plan file with the columns that inspection reads."""
    rows = [{"source_id": item.source_id, "unit": unit} for item, unit in planned]
    publish_bytes(f"{layout.plan}/{name}", to_parquet(pa.Table.from_pylist(rows)))


def _crops(masks: list[np.ndarray]) -> list[CroppedMask | None]:
    return [crop for crop in map(crop_mask, masks) if crop is not None]


def _boxes(crops: list[CroppedMask | None]) -> Boxes:
    return np.array([mask_box(crop) for crop in crops if crop], np.float32).reshape(-1, 4)
