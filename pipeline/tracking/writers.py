"""Tracks written to files frame by frame: MOTChallenge text, COCO-VID and TAO JSON, Parquet.

Rows are written as they come, so memory does not grow with the video. A run that fails leaves no file; one that is
stopped leaves partial ones, which are called so.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet

from trackmill.pipeline.storage.parquet.checksum import add_checksum
from trackmill.pipeline.storage.publish import publish_file, remove
from trackmill.pipeline.storage.scratch import naming, scratch_file
from trackmill.pipeline.storage.urls import filesystem, is_local
from trackmill.pipeline.tracking.image_table import ImageTable
from trackmill.schemas.masks import CroppedMask, format_counts, mask_area, to_coco_rle
from trackmill.schemas.tracking import SourceFrame, TrackedObjects

_ROWS_AT_ONCE = 8192


class TrackSink(ABC):
    """Takes frames with their tracks, in their order: a file that is written, or a window that shows them."""

    url: str = ""
    """Where the result goes; "" where none is kept."""

    draws: ClassVar[bool] = False
    """Whether it needs the pictures of the frames, and not only their sizes."""

    @abstractmethod
    def write(self, frame: SourceFrame, tracked: TrackedObjects) -> None:
        """Take the next frame, also one without objects."""

    def finish(self) -> str:
        """The video has ended: return the URL of the result, "" where there is none."""
        return ""

    def keep(self) -> str:
        """The run was stopped: return the URL of what there is so far, "" where there is nothing."""
        return ""

    def abandon(self) -> None:  # noqa: B027  a window leaves nothing
        """The run failed: leave nothing behind."""


class TrackWriter(TrackSink):
    """Takes frames in their order. What it writes goes to a scratch file, which gets its name when it is complete.

    The file of a run that was stopped is called `NAME.partial.txt`, so that nobody takes it for a whole one. Where
    `streamed` is set and the output is local, it has that name from the start, and is there also after a kill.

    Args:
        url: where the result goes.
    """

    streamed: ClassVar[bool] = False
    """Whether what has been written can be used at any time."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._scratch = scratch_file(url)
        self._shown: os.stat_result | None = None
        self._ended = False
        self._published = ""
        if self.streamed:
            self._show_partial()

    @property
    def partial_url(self) -> str:
        """Where the result of a run that was stopped goes: the next run takes it away."""
        stem, _, suffix = self.url.rpartition(".")
        return f"{stem}.partial.{suffix}"

    def finish(self) -> str:
        """Put the file in its place, and return its URL; "" where there is nothing to put there.

        Raises:
            OSError: it could not be written.
        """
        self._publish(self.url)
        remove(self.partial_url)
        return self.url

    def keep(self) -> str:
        """Put what there is so far in the place for partial results, and return its URL; "" where there is nothing.

        What was finished before the run was stopped stays where it is.

        Raises:
            OSError: it could not be written.
        """
        if not self._published:
            self._publish(self.partial_url)
        return self._published

    def abandon(self) -> None:
        """Leave nothing behind; what was finished stays."""
        if self._published:
            return
        with contextlib.suppress(OSError):
            self._close()  # of a full disk it tries once more to write what is left
        if self._shown is not None:
            partial = filesystem(self.partial_url)[1]
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(partial), self._shown):
                    os.unlink(partial)
        self._scratch.unlink(missing_ok=True)

    def _publish(self, url: str) -> None:
        with naming(self.url):
            if not self._ended:  # it may have been stopped while it was put into its place
                self._write_end()
                self._close()
                self._ended = True
        if url == self.partial_url:
            remove(url)  # it may be the scratch file's second name already, and then a rename would do nothing
        publish_file(self._scratch, url)
        self._published = url

    def _show_partial(self) -> None:
        """Give the scratch file a second name that people find."""
        if not is_local(self.url):
            return
        partial = filesystem(self.partial_url)[1]
        with contextlib.suppress(OSError):  # not every file system has links; a stop then still keeps the file
            remove(self.partial_url)
            os.link(self._scratch, partial)
            self._shown = os.stat(partial)

    def _write_end(self) -> None:
        """Write what follows the last frame."""

    @abstractmethod
    def _close(self) -> None:
        """Close the scratch file; a second time does nothing."""


class MotWriter(TrackWriter):
    """MOTChallenge text: `frame, id, x, y, width, height, score, class, -1, -1`, frames from 1, ids from 0.

    The class is the category id where there are several classes, else -1, which every evaluation takes for its own
    class. Coordinates have three decimals.

    Args:
        url: where it goes.
        category_ids: of each label.
    """

    streamed = True

    def __init__(self, url: str, category_ids: Sequence[int]) -> None:
        super().__init__(url)
        self._category_ids = category_ids
        self._handle = open(self._scratch, "w", encoding="ascii")  # noqa: SIM115  see _close

    def write(self, frame: SourceFrame, tracked: TrackedObjects) -> None:
        """See `TrackWriter.write`."""
        several = len(self._category_ids) > 1
        lines = []
        for identity, box, label, score in _rows(tracked):
            place = ",".join(f"{value:.3f}" for value in _xywh(box))
            category = self._category_ids[label] if several else -1
            lines.append(f"{frame.number},{identity},{place},{score:.6g},{category},-1,-1\n")
        self._handle.write("".join(lines))
        self._handle.flush()

    def _close(self) -> None:
        self._handle.close()


class CocoWriter(TrackWriter):
    """COCO-VID: `{"annotations", "images", "videos", "categories"}`; or a bare list of results, as for TAO.

    Boxes are `[x, y, width, height]`, masks compressed COCO run lengths of the whole frame. Image ids are those of
    `table`, and a frame that it does not know is not written; without one they are the numbers of the frames, from 1.

    Args:
        url: where it goes.
        video: name of the sequence.
        names, category_ids: of each label.
        table: ids that the data set has given.
        bare: whether to write the list of results alone.
    """

    def __init__(
        self,
        url: str,
        video: str,
        names: Sequence[str],
        category_ids: Sequence[int],
        table: ImageTable | None = None,
        bare: bool = False,
    ) -> None:
        super().__init__(url)
        self._category_ids, self._bare = category_ids, bare
        self._video = {"id": table.video_id if table else 1, "name": video}
        self._categories = [{"id": number, "name": name} for number, name in zip(category_ids, names, strict=True)]
        self._image_ids = {frame: image for image, frame in table.frames.items()} if table else None
        self._images: list[bytes] = []
        self._num_rows = 0
        self._handle = open(self._scratch, "wb")  # noqa: SIM115  see _close
        self._handle.write(b"[" if bare else b'{"annotations":[')

    def write(self, frame: SourceFrame, tracked: TrackedObjects) -> None:
        """See `TrackWriter.write`."""
        image_id: int | None = frame.number
        if self._image_ids is not None:
            image_id = self._image_ids.get(frame.number - 1)
            if image_id is None:
                return
        height, width = frame.image.shape[:2]
        if not self._bare:
            image = {
                "id": image_id,
                "video_id": self._video["id"],
                "frame_index": frame.number - 1,
                "file_name": frame.file_name,
                "height": height,
                "width": width,
            }
            self._images.append(orjson.dumps(image))
        masks = tracked.objects.masks
        entries: list[bytes] = []
        for row, (identity, box, label, score) in enumerate(_rows(tracked)):
            x, y, box_width, box_height = (round(value, 3) for value in _xywh(box))
            entry: dict[str, Any] = {
                "id": self._num_rows + len(entries) + 1,
                "image_id": image_id,
                "video_id": self._video["id"],
                "track_id": identity,
                "category_id": self._category_ids[label],
                "bbox": [x, y, box_width, box_height],
                "area": box_width * box_height,
                "score": round(score, 6),
                "iscrowd": 0,
            }
            if masks is not None:
                mask = masks[row]
                entry["segmentation"] = _rle(mask, height, width)
                entry["area"] = 0 if mask is None else mask_area(mask)
            entries.append(orjson.dumps(entry))
        if entries:
            self._handle.write((b",\n" if self._num_rows else b"\n") + b",\n".join(entries))
            self._num_rows += len(entries)

    def _write_end(self) -> None:
        self._handle.write(b"\n]")
        if not self._bare:
            self._handle.write(b',"images":[\n' + b",\n".join(self._images) + b"\n],")
            self._handle.write(orjson.dumps({"videos": [self._video], "categories": self._categories})[1:])
        self._handle.write(b"\n")

    def _close(self) -> None:
        self._handle.close()


class ParquetWriter(TrackWriter):
    """One row for each object in each frame; `frame` counts from 0, boxes are `x0, y0, x1, y1` in pixels.

    `mask` holds compressed COCO run lengths of the frame of `height` x `width`, null for an object without one.

    Args:
        url: where it goes.
        names: of each label.
        category_ids: of each label.
    """

    SCHEMA = pa.schema(
        [
            ("frame", pa.int64()),
            ("time_s", pa.float64()),
            ("id", pa.int64()),
            *((side, pa.float32()) for side in ("x0", "y0", "x1", "y1", "score")),
            ("category_id", pa.int64()),
            ("name", pa.string()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("mask", pa.string()),
        ]
    )

    def __init__(self, url: str, names: Sequence[str], category_ids: Sequence[int]) -> None:
        super().__init__(url)
        self._names, self._category_ids = names, category_ids
        self._rows: list[tuple[Any, ...]] = []
        try:
            with naming(url):  # the first bytes of the file are written here
                self._writer = pyarrow.parquet.ParquetWriter(
                    self._scratch, self.SCHEMA, compression="zstd", write_page_checksum=True
                )
        except OSError:
            self._scratch.unlink(missing_ok=True)
            raise

    def write(self, frame: SourceFrame, tracked: TrackedObjects) -> None:
        """See `TrackWriter.write`."""
        height, width = frame.image.shape[:2]
        masks = tracked.objects.masks
        for row, (identity, box, label, score) in enumerate(_rows(tracked)):
            mask = masks[row] if masks is not None else None
            counts = None if mask is None else to_coco_rle(mask, height, width)["counts"]
            known = (self._category_ids[label], self._names[label])
            self._rows.append((frame.number - 1, frame.time_s, identity, *box, score, *known, height, width, counts))
        if len(self._rows) >= _ROWS_AT_ONCE:
            self._flush()

    def _write_end(self) -> None:
        self._flush()
        self._writer.close()
        add_checksum(self._scratch)

    def _close(self) -> None:
        self._writer.close()

    def _flush(self) -> None:
        columns = list(zip(*self._rows, strict=True)) or [()] * len(self.SCHEMA)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self.SCHEMA, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self.SCHEMA))
        self._rows = []


def _rows(tracked: TrackedObjects) -> list[tuple[int, list[float], int, float]]:
    objects = tracked.objects
    columns = (tracked.ids.tolist(), objects.boxes.tolist(), objects.labels.tolist(), objects.scores.tolist())
    return list(zip(*columns, strict=True))


def _xywh(box: Sequence[float]) -> tuple[float, float, float, float]:
    return box[0], box[1], box[2] - box[0], box[3] - box[1]


def _rle(mask: CroppedMask | None, height: int, width: int) -> dict[str, object]:
    if mask is None:
        return {"size": [height, width], "counts": format_counts(np.array([height * width], np.int64))}
    return to_coco_rle(mask, height, width)
