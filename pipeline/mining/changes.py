"""Files that changed since they were planned: a video that grew, a picture of another size.

What is planned stays as it is, because shards and receipts are named after it. A video's cuts depend on its length, so
a longer one would be cut elsewhere: the frames behind the planned ones get clips of their own instead.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trackmill.pipeline.console.words import counted
from trackmill.pipeline.mining.plan import Plan
from trackmill.pipeline.mining.plan_files import MAX_PLAN_BYTES
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.receipts import typed_table
from trackmill.pipeline.sources.clips import cut_clips
from trackmill.pipeline.sources.item_columns import ITEM_FIELDS, items_of
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.listing import Listing
from trackmill.pipeline.storage.parquet.checksum import add_checksum
from trackmill.pipeline.storage.parquet.on_disk import StoredTable
from trackmill.pipeline.storage.publish import publish_copy
from trackmill.pipeline.storage.scratch import scratch_folder, scratch_path
from trackmill.pipeline.storage.sorted_batches import SortedBatches, Sorter, beside
from trackmill.pipeline.storage.urls import join
from trackmill.schemas.keys import sample_key, slug
from trackmill.schemas.media import WorkItem

log = logging.getLogger("trackmill")

_SHOWN = 10
_HIDES = r"://.*[?#@]"
"""Names that `redact` may change."""

_SIZES = pa.schema([("uri", pa.string()), ("size", pa.int64())])
_DIGEST_DIGITS = 17  # of a key, with the hyphen before them
_CLIP = re.compile(r"-c\d{3,}$")


def store_sizes(layout: Layout, files: Listing, known: SortedBatches) -> None:
    """Write down how large the input's files were when they were planned, those that are not `known` yet."""
    path = scratch_path(str(scratch_folder() / "sizes.parquet"))
    try:
        num_rows = 0
        options: dict[str, Any] = {"compression": "zstd", "use_dictionary": False, "write_statistics": False}
        with pq.ParquetWriter(path, _SIZES, write_page_checksum=True, **options) as writer:
            for batch, near in beside(_by_shown_name(files), "uri", known.batches()):
                there = pc.is_in(batch["uri"], _texts(near, "uri"))
                new = batch.filter(pc.invert(there))
                num_rows += len(new)
                if len(new):
                    writer.write_batch(new)
        if num_rows:
            add_checksum(path)
            publish_copy(path, join(layout.listing, f"sizes-{len(_parts(layout)):04d}.parquet"))
    finally:
        path.unlink(missing_ok=True)


def stored_sizes(layout: Layout | None) -> SortedBatches:
    """Bytes of each file when it was planned; empty for a data set that is older than this record, or for none."""
    sizes = Sorter(_SIZES, "uri", once=True)
    # Of a file that was written down twice the first counts, and the sorter keeps the last.
    for uri in reversed(_parts(layout)) if layout else ():
        try:
            file = StoredTable(uri, MAX_PLAN_BYTES)
            for number in range(len(file.group_rows)):
                for batch in typed_table(file.group(number), _SIZES).combine_chunks().to_batches():
                    sizes.add(batch)
        except ValueError as error:
            log.warning("%s: cannot be read (%s); files that changed since are not noticed", redact(uri), error)
    return sizes.finish()


def tell_changed(files: Listing, known: SortedBatches) -> int:
    """Warn of files that are not as large as when they were planned; returns how many.

    A size of 0 means that a server did not say.
    """
    count = 0
    for batch, near in beside(_by_shown_name(files), "uri", known.batches()) if known.num_rows else ():
        sizes = pa.concat_arrays([each["size"] for each in near] or [pa.array([], pa.int64())])
        before = sizes.take(pc.index_in(batch["uri"], _texts(near, "uri")))
        now = batch["size"]
        differ = pc.and_(pc.not_equal(before, now), pc.and_(pc.not_equal(before, 0), pc.not_equal(now, 0)))
        rows = pa.table({"uri": batch["uri"], "before": before, "now": now}).filter(differ)
        for row in rows.slice(0, max(0, _SHOWN - count)).to_pylist():
            log.warning("%s: had %d bytes when it was planned, and has %d now", row["uri"], row["before"], row["now"])
        count += len(rows)
    if count:
        log.warning(
            "%s changed after planning: what is mined of them stays as it was, the rest is read as it is now; give "
            "another --output to mine all anew",
            counted(count, "input file"),
        )
    return count


def _by_shown_name(files: Listing) -> Iterator[pa.RecordBatch]:
    """A listing in the order of the names that may be written down, each once."""
    if not files.any_matches(_HIDES):
        yield from files.batches()
        return
    shown = Sorter(_SIZES, "uri", once=True)
    for batch in files.batches():
        names = pa.array([redact(uri) for uri in batch["uri"].to_pylist()], pa.string())
        shown.add(pa.RecordBatch.from_arrays([names, batch["size"]], schema=_SIZES))
    yield from shown.finish().batches()


def _texts(batches: Sequence[pa.RecordBatch], name: str) -> pa.Array:
    return pa.concat_arrays([each[name] for each in batches] or [pa.array([], pa.string())])


def with_growth(items: Sequence[WorkItem], plan: Plan | None) -> list[WorkItem]:
    """The items of a listing, in which videos that are longer than planned have clips for what is new in them.

    Args:
        items: of the listing, cut as if nothing were planned.
        plan: what is planned.
    """
    planned = _planned_clips(plan)
    fresh: dict[tuple[str, str], list[WorkItem]] = defaultdict(list)
    for item in items:
        if (item.source, video_of(item.source_id)) in planned:
            fresh[item.source, video_of(item.source_id)].append(item)
    replaced: dict[tuple[str, str], list[WorkItem]] = {}
    for video, clips in fresh.items():
        before = planned[video]
        if any("error" in orjson.loads(clip.details) for clip in before) or _same_cuts(before, clips):
            continue
        replaced[video] = before + _clips_behind(before, sorted(clips, key=lambda clip: clip.first_frame))
    if not replaced:
        return list(items)
    kept = [item for item in items if (item.source, video_of(item.source_id)) not in replaced]
    return kept + [clip for clips in replaced.values() for clip in clips]


def _planned_clips(plan: Plan | None) -> dict[tuple[str, str], list[WorkItem]]:
    if plan is None or not plan.num_items:
        return {}
    planned: dict[tuple[str, str], list[WorkItem]] = defaultdict(list)
    for rows in plan.batches(ITEM_FIELDS):
        for clip in items_of(rows.filter(pc.match_substring_regex(rows["source_id"], r"#c\d{3,}$"))):
            planned[clip.source, video_of(clip.source_id)].append(clip)
    for clips in planned.values():
        clips.sort(key=lambda clip: clip.first_frame)
    return planned


def video_of(source_id: str) -> str:
    """What a clip is cut from: a file, a member of a tar, or numbered pictures, of which a folder may hold several."""
    return source_id.rpartition("#c")[0]


def clip_name(clip: WorkItem, number: int) -> tuple[str, str]:
    """`source_id` and key of another clip of the same video."""
    source_id = f"{video_of(clip.source_id)}#c{number:03d}"
    name = clip.key.removeprefix(f"{slug(clip.source)}-")[:-_DIGEST_DIGITS]
    return source_id, sample_key(clip.source, f"{_CLIP.sub('', name)}-c{number:03d}", source_id)


def _same_cuts(before: Sequence[WorkItem], now: Sequence[WorkItem]) -> bool:
    cuts = [{(c.source_id, c.first_frame, c.frames, c.stride) for c in clips} for clips in (before, now)]
    return cuts[1] <= cuts[0] or cuts[0] <= cuts[1]


def _clips_behind(before: list[WorkItem], now: list[WorkItem]) -> list[WorkItem]:
    """Clips of the frames that lie behind the planned ones; none where the video is another or a shorter one."""
    first, stride, uri = now[0], now[0].stride, redact(video_of(now[0].source_id))
    count = sum(clip.frames for clip in before)
    total = sum(clip.frames for clip in now)
    if any(clip.stride != stride for clip in before) or total <= count:
        what = "another frame rate" if total > count else "no more frames than that"
        log.warning(
            "%s: changed since it was planned with %s to store, and has %s now: its clips stay as planned; give "
            "another --output to cut it anew",
            uri,
            counted(count, "frame"),
            what,
        )
        return []
    details = _details_from(before, now, count)
    if details is None:
        log.warning("%s: grew since it was planned; what is new is left out: give another --output to cut it anew", uri)
        return []
    longest = max(clip.frames for clip in [*before, *now])
    clips = []
    for clip in cut_clips(total - count, longest):
        number = len(before) + clip.number
        source_id, key = clip_name(first, number)
        clips.append(
            dataclasses.replace(
                first,
                source_id=source_id,
                key=key,
                frames=clip.length,
                first_frame=(count + clip.start) * stride,
                details=orjson.dumps(details(clip.start, clip.length), option=orjson.OPT_SORT_KEYS).decode(),
            )
        )
    log.warning(
        "%s: grew since it was planned: %s behind the %d of its plan, in %s",
        uri,
        counted(total - count, "frame"),
        count,
        counted(len(clips), "more clip"),
    )
    return clips


def _details_from(
    before: Sequence[WorkItem], now: Sequence[WorkItem], count: int
) -> Callable[[int, int], dict[str, Any]] | None:
    """A function from (start, length), counted from frame `count` on, to the details of a clip; None if unknown.

    What a source knows of each frame is a list in the details of a clip: names of files, numbers, masks.
    """
    each = [orjson.loads(clip.details) for clip in now]
    keys = [key for key, value in each[0].items() if isinstance(value, list)]
    lists = {key: [value for details in each for value in details.pop(key)] for key in keys}
    planned = {key: [value for clip in before for value in orjson.loads(clip.details).get(key, [])] for key in keys}
    total = sum(clip.frames for clip in now)
    if any(details != each[0] for details in each) or any(len(values) != total for values in lists.values()):
        return None
    if any(values != lists[key][:count] for key, values in planned.items()):
        return None  # other frames came between or before

    def details(start: int, length: int) -> dict[str, Any]:
        begin = count + start
        common: dict[str, Any] = each[0]
        return common | {key: values[begin : begin + length] for key, values in lists.items()}

    return details


def _parts(layout: Layout) -> list[str]:
    try:
        return [file.uri for file in list_files(layout.listing) if file.uri.endswith(".parquet")]
    except FileNotFoundError:
        return []
