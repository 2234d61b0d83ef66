"""Files that changed since they were planned: a video that grew, a picture of another size.

What is planned stays as it is, because shards and receipts are named after it. A video's cuts depend on its length, so
a longer one would be cut elsewhere: the frames behind the planned ones get clips of their own instead.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from trackmill.pipeline.mining.plan import Plan
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.receipts import to_parquet, typed_table
from trackmill.pipeline.sources.clips import cut_clips
from trackmill.pipeline.sources.item_columns import ITEM_FIELDS, items_of
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import FileInfo, join, list_files, read_bytes
from trackmill.pipeline.storage.parquet.reading import MAX_TABLE_FILE_BYTES, ParquetData
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.schemas.keys import sample_key, slug
from trackmill.schemas.media import WorkItem

log = logging.getLogger("trackmill")

_SHOWN = 10
_SIZES = pa.schema([("uri", pa.string()), ("size", pa.int64())])
_DIGEST_DIGITS = 17  # of a key, with the hyphen before them
_CLIP = re.compile(r"-c\d{3,}$")


def store_sizes(layout: Layout, files: Iterable[FileInfo], known: dict[str, int]) -> None:
    """Write down how large the input's files were when they were planned, those that are not `known` yet."""
    new = {redact(file.uri): file.size for file in files}
    new = {uri: size for uri, size in new.items() if uri not in known}
    if new:
        table = pa.table({"uri": list(new), "size": list(new.values())}, schema=_SIZES)
        number = len(_parts(layout))
        publish_bytes(join(layout.listing, f"sizes-{number:04d}.parquet"), to_parquet(table))


def stored_sizes(layout: Layout) -> dict[str, int]:
    """Bytes of each file when it was planned; empty for a data set that is older than this record."""
    sizes: dict[str, int] = {}
    for uri in _parts(layout):
        try:
            data = ParquetData(read_bytes(uri, max_bytes=MAX_TABLE_FILE_BYTES))
            table = typed_table(data, _SIZES, row_bytes=300)
        except ValueError as error:
            log.warning("%s: cannot be read (%s); files that changed since are not noticed", redact(uri), error)
            continue
        for name, size in zip(table["uri"].to_pylist(), table["size"].to_pylist()):
            sizes.setdefault(name, size)
    return sizes


def tell_changed(files: Iterable[FileInfo], known: dict[str, int]) -> int:
    """Warn of files that are not as large as when they were planned; returns how many.

    A size of 0 means that a server did not say.
    """
    changed = [
        (file.uri, before, file.size)
        for file in files
        if (before := known.get(redact(file.uri), file.size)) != file.size and before and file.size
    ]
    for uri, before, now in changed[:_SHOWN]:
        log.warning("%s: had %d bytes when it was planned, and has %d now", redact(uri), before, now)
    if changed:
        log.warning(
            "%d input files changed since they were planned: what is mined of them stays as it was, the rest is read "
            "as it is now; give another --output to mine them anew",
            len(changed),
        )
    return len(changed)


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
            "%s: changed since it was planned with %d frames to store, and has %s now: its clips stay as planned; give "
            "another --output to cut it anew",
            uri,
            count,
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
        "%s: grew since it was planned: %d frames behind the %d that are planned get %d clips of their own",
        uri,
        total - count,
        count,
        len(clips),
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
