"""A data set as the page asks for it: what it amounts to, rows that match, samples, pictures, masks, sidecars.

Everything is named by what the data set itself lists: a sample by its number and key, a sidecar by its name. No path
comes from the page, so none can lead out of the data set.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from typing import Any

from PIL import Image

from trackmill.pipeline.inspect.overlay import More
from trackmill.pipeline.inspect.thumbnails import jpeg_bytes, shown
from trackmill.pipeline.media.drawing.palette import NEGATIVE, PROPOSAL, REFUSED, SIDECAR, css, identity_colour
from trackmill.pipeline.shards.decode import Sample, decode_jpeg
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.reader import Dataset, open_dataset, read_row
from trackmill.pipeline.shards.rows import RowBlocks
from trackmill.pipeline.shards.totals import Totals
from trackmill.pipeline.sidecars.about import Sidecars, find_sidecars
from trackmill.pipeline.sidecars.showing import boxes_of
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import exists
from trackmill.pipeline.storage.urls import canonical
from trackmill.pipeline.view.cache import BoundedCache
from trackmill.pipeline.view.described import lineage, mask_values, row_values, sample_values, sidecar_values
from trackmill.pipeline.view.matches import Filters, Matches
from trackmill.schemas.errors import InputError
from trackmill.schemas.receipt import ReceiptRow

THUMBNAIL_WIDTHS = (200, 400)
"""Few, so that a cache of them has a use."""
SAMPLE_BYTES = 256 << 20
PICTURE_BYTES = 64 << 20
"""Memory for samples as they lie in shards, and for thumbnails."""
_SEARCHES = 8
_MOST_LISTED = 50


class NotThere(LookupError):
    """What was asked for is not in the data set; the text says what."""


class DataSetView:
    """One data set, opened; from any thread.

    Args:
        url: of a data set, a tar or a folder of tars.
        sample_bytes, picture_bytes: limits of the caches.

    Raises:
        InputError, FileNotFoundError: see `trackmill.pipeline.shards.reader.open_dataset`.
        BadReceipt: the manifest is damaged.
        OSError: storage failed for good.
    """

    def __init__(self, url: str, sample_bytes: int = SAMPLE_BYTES, picture_bytes: int = PICTURE_BYTES) -> None:
        self._url = canonical(url)
        self._limits = sample_bytes, picture_bytes
        self._open()

    def again(self) -> None:
        """Open it again: mining may have gone on. Raises what opening raises; then what was seen stays."""
        self._open()

    def _open(self) -> None:
        opened = _opened(self._url)
        sidecars = find_sidecars(opened.layout) if opened.layout is not None else Sidecars(root=self._url)
        self._now = _Opened(opened, sidecars, *self._limits)

    def about(self) -> dict[str, Any]:
        """What the head of the page shows, and what its filters offer."""
        return self._now.about()

    def rows(self, filters: Filters, begin: int, count: int) -> dict[str, Any]:
        """A page of the rows that match, see `Matches.page`."""
        return self._now.page(filters, begin, count)

    def sample(self, number: int, key: str, only_frame: int | None = None) -> dict[str, Any]:
        """A sample: its boxes, and with all frames also its lineage.

        Args:
            number: of its row, as `rows` gave it; -1 where only the key is known.
            key: of the sample.
            only_frame: give the boxes of this frame alone.

        Raises:
            NotThere: no sample has this key, or no such frame.
            BadShard: it is damaged.
            OSError: the shard could not be read.
        """
        now = self._now
        row_number, row = now.row(number, key)
        sample = now.read(row)
        if only_frame is not None:
            _require_frame(sample, only_frame)
        found = sample_values(sample, only_frame) | {"number": row_number}
        if only_frame is None:
            lines = lineage(sample, row, redact(self._url))
            found["lineage"] = [{"heading": h, "name": n, "value": v} for h, n, v in lines]
            found["uri"] = shown(redact(sample.record.origin.uri))
        return found

    def frame(self, number: int, key: str, frame: int, width: int = 0) -> bytes:
        """A frame as JPEG: as it is stored, or `width` pixels wide where that is one of `THUMBNAIL_WIDTHS`.

        Raises what `sample` raises.
        """
        now = self._now
        _, row = now.row(number, key)
        if not width:
            sample = now.read(row)
            _require_frame(sample, frame)
            return sample.jpegs[frame]
        return now.thumbnails.get((row.key, frame, width), lambda: _thumbnail(now.read(row), frame, width))

    def masks(self, number: int, key: str, frame: int) -> dict[str, Any]:
        """The masks of a frame, see `described.mask_values`; raises what `sample` raises, and ValueError."""
        sample = self._now.read(self._now.row(number, key)[1])
        _require_frame(sample, frame)
        return mask_values(sample, frame)

    def sidecar(self, name: str, number: int, key: str) -> dict[str, Any]:
        """The boxes of a sidecar on all frames of a sample.

        Raises:
            NotThere: see `sample`.
            SidecarError, BadPart: there is no such sidecar, none for this unit, it has no boxes, or is damaged.
            OSError: it could not be read.
        """
        now = self._now
        sample = now.read(now.row(number, key)[1])
        more = now.boxes(name)
        with now.sidecar_lock:
            frames = [sidecar_values(more(sample, frame)) for frame in range(len(sample.record.frames))]
        return {"name": name, "frames": frames}


class _Opened:
    """What belongs to one opening of the data set; a later opening has another."""

    def __init__(self, dataset: Dataset, sidecars: Sidecars, sample_bytes: int, picture_bytes: int) -> None:
        self.dataset, self.sidecars = dataset, sidecars
        self._samples: BoundedCache[tuple[str, int], Sample] = BoundedCache(sample_bytes, lambda s: s.size)
        self.thumbnails: BoundedCache[tuple[str, int, int], bytes] = BoundedCache(picture_bytes, len)
        self._searches: OrderedDict[Filters, Matches] = OrderedDict()
        self._search_lock = threading.Lock()
        self.sidecar_lock = threading.Lock()
        self._boxes: dict[str, More] = {}

    def about(self) -> dict[str, Any]:
        """See `DataSetView.about`."""
        dataset, totals = self.dataset, self.dataset.totals
        complete = dataset.layout is None or exists(dataset.layout.manifest)
        try:
            settings = dataset.config
        except InputError as error:
            settings = {"fingerprint": shown(error)}
        return {
            "url": shown(redact(dataset.url)),
            "going": not complete,
            "counted": dataset.recorded is not None,
            "fingerprint": shown(settings.get("fingerprint", "")),
            "samples": totals.statuses["ok"],
            "statuses": dict(totals.statuses),
            "stored": dict(totals.stored),
            "shards": len(dataset.shards),
            "bytes": sum(shard.num_bytes for shard in dataset.shards),
            "sources": _most(totals.sources),
            "reasons": _most(totals.reasons),
            "damaged": [shown(what) for _, what in dataset.damaged[:_MOST_LISTED]],
            "num_damaged": len(dataset.damaged),
            "sidecars": self._listed_sidecars(),
            "colours": {
                "proposals": css(PROPOSAL),
                "negatives": css(NEGATIVE),
                "refused": css(REFUSED),
                "sidecar": css(SIDECAR),
                "objects": css(identity_colour(0)),
            },
        }

    def _listed_sidecars(self) -> list[dict[str, Any]]:
        found = []
        for name, sidecar in self.sidecars.by_name.items():
            columns = {column.name: column.dtype for column in sidecar.about.columns}
            made = sidecar.about.parts.get("producer", {})
            found.append(
                {
                    "name": name,
                    "producer": shown(f"{made.get('name', 'unknown')}/{made.get('version', '?')}"),
                    "parts": len(sidecar.parts),
                    "columns": list(columns),
                    "boxes": "box" in columns.values(),
                    "damaged": "",
                }
            )
        damaged = [
            {"name": name, "producer": "", "parts": 0, "columns": [], "boxes": False, "damaged": shown(what)}
            for name, what in self.sidecars.damaged.items()
        ]
        return found + damaged

    def page(self, filters: Filters, begin: int, count: int) -> dict[str, Any]:
        """See `DataSetView.rows`."""
        with self._search_lock:
            if filters not in self._searches:
                rows = self.dataset.stored if filters.status == "ok" else self.dataset.rows
                self._searches[filters] = Matches(rows, filters)
                while len(self._searches) > _SEARCHES:
                    self._searches.popitem(last=False)
            self._searches.move_to_end(filters)
            page = self._searches[filters].page(begin, count)
        values = dataclasses.asdict(page) | {"begin": begin}
        return values | {"rows": [row_values(number, row) for number, row in page.rows]}

    def row(self, number: int, key: str) -> tuple[int, ReceiptRow]:
        """The row of a sample; one whose number does not fit any more is found by its key."""
        stored = self.dataset.stored
        if 0 <= number < len(stored):
            row = stored[number]
            if row.key == key:
                return number, row
        found = self.dataset.find(key)
        if found is None or found.status != "ok":
            raise NotThere(f"no sample {shown(key)!r} in this data set")
        return -1, found

    def read(self, row: ReceiptRow) -> Sample:
        """The sample of a row, by one ranged read, or from memory."""
        return self._samples.get((row.shard, row.offset), lambda: read_row(self.dataset, row))

    def boxes(self, name: str) -> More:
        """The boxes of a sidecar."""
        with self.sidecar_lock:
            if name not in self._boxes:
                self._boxes[name] = boxes_of(self.dataset, name, self.sidecars)
            return self._boxes[name]


def _opened(url: str) -> Dataset:
    try:
        return open_dataset(url, keep_damaged=True, by_manifest=True)
    except FileNotFoundError:
        layout = Layout(url)
        if url.endswith(".tar") or not exists(layout.config):
            raise
        # Mining has begun, and no unit is done yet.
        blocks = RowBlocks(lambda number, schema: schema.empty_table(), [], lambda number: redact(url))
        return Dataset(url, layout, [], [], blocks, sums=Totals())


def _thumbnail(sample: Sample, frame: int, width: int) -> bytes:
    """Raises what `DataSetView.frame` raises."""
    if width not in THUMBNAIL_WIDTHS:
        raise NotThere(f"no thumbnails are {width} pixels wide; there are {', '.join(map(str, THUMBNAIL_WIDTHS))}")
    _require_frame(sample, frame)
    stored, member = sample.record.stored, sample.record.frames[frame].member
    width = min(width, stored.width)
    height = max(1, round(stored.height * width / stored.width))
    pixels = decode_jpeg(sample.jpegs[frame], sample.shard, member, stored.height, stored.width, (height, width))
    return jpeg_bytes(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))


def _require_frame(sample: Sample, frame: int) -> None:
    if not 0 <= frame < len(sample.record.frames):
        raise NotThere(f"{sample.key} has no frame {frame}: it has {len(sample.record.frames)}")


def _most(counts: dict[str, int]) -> list[dict[str, Any]]:
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return [{"name": shown(name), "count": count} for name, count in ordered[:_MOST_LISTED]]
