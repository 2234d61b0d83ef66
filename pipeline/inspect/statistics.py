"""Numbers that tell whether a data set is any good: how many boxes, how large, how sure, how often twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa

from trackmill.pipeline.inspect.selection import Unreadable, select_rows
from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.shards.reader import Dataset, iter_samples, read_row
from trackmill.pipeline.shards.tar import BadShard
from trackmill.pipeline.shards.totals import exact_sum
from trackmill.pipeline.shards.visible import visible_boxes
from trackmill.schemas.boxes import box_areas, iou_matrix

NEAR_DUPLICATE_IOU = 0.9
_PER_FRAME = (0, 1, 2, 3, 5, 9, 17, 33, 65, 129, 257, 1025)
_AREAS = (0.0, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_SCORES = tuple(round(0.1 * i, 1) for i in range(11))


@dataclass
class Histogram:
    """Counts of values: bin i holds `edges[i] <= value < edges[i + 1]`; the first and last take what lies beyond."""

    edges: tuple[float, ...]
    counts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.edges) - 1)

    def add(self, values: Iterable[float]) -> None:
        """Count some values."""
        for bin_number in np.searchsorted(self.edges, np.asarray(list(values), np.float64), side="right") - 1:
            self.counts[min(max(int(bin_number), 0), len(self.counts) - 1)] += 1


@dataclass
class Statistics:
    """What `collect` statistics; areas are shares of the frame, `near_duplicates` is a share of the proposals."""

    samples_read: int = 0
    samples_stored: int = 0
    images: int = 0
    clips: int = 0
    frames: int = 0
    num_objects: int = 0
    num_proposals: int = 0
    num_negatives: int = 0
    num_near_duplicates: int = 0
    objects_per_frame: Histogram = field(default_factory=lambda: Histogram(_PER_FRAME))
    proposals_per_frame: Histogram = field(default_factory=lambda: Histogram(_PER_FRAME))
    negatives_per_frame: Histogram = field(default_factory=lambda: Histogram(_PER_FRAME))
    object_areas: Histogram = field(default_factory=lambda: Histogram(_AREAS))
    proposal_areas: Histogram = field(default_factory=lambda: Histogram(_AREAS))
    proposal_scores: Histogram = field(default_factory=lambda: Histogram(_SCORES))
    refused: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    quarantined: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    bytes_stored: int = 0
    bytes_per_sample_median: int = 0
    bytes_per_sample_max: int = 0

    @property
    def near_duplicates(self) -> float:
        """Share of the proposals that overlap an earlier one of their frame by more than `NEAR_DUPLICATE_IOU`."""
        return self.num_near_duplicates / max(1, self.num_proposals)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, Histogram):
                value = {"edges": list(value.edges), "counts": value.counts}
            plain[name] = dict(value.most_common()) if isinstance(value, Counter) else value
        return plain | {"near_duplicates": round(self.near_duplicates, 4)}


def collect(
    dataset: Dataset,
    max_samples: int | None = None,
    progress: Callable[[int], None] | None = None,
    unreadable: Unreadable | None = None,
) -> Statistics:
    """Read samples and count.

    Args:
        dataset: what to look at.
        max_samples: read only so many, the same ones every time; None streams over all of them.
        progress: called with 1 after each sample.
        unreadable: receives shards that are missing or damaged, and the others are counted; None: they are errors.

    Raises:
        BadShard: a sample is damaged; `trackmill.pipeline.shards.verify` finds all that are.
        OSError: a shard could not be read. With `unreadable` both only where no shard can be.
    """
    statistics = Statistics(samples_stored=len(dataset.stored))
    totals = dataset.totals
    statistics.statuses.update(totals.statuses)
    for error_class, count in totals.reasons.items():
        statistics.quarantined[error_class or "unknown"] += count
    if statistics.samples_stored:
        tables = dataset.stored.tables(pa.schema([("size", pa.int64())]))
        lengths = np.concatenate([table["size"].to_numpy() for table in tables])
        half = len(lengths) // 2
        lengths.partition([max(0, half - 1), half, len(lengths) - 1])
        statistics.bytes_stored = exact_sum(pa.chunked_array([lengths]))
        statistics.bytes_per_sample_max = int(lengths[-1])
        middle = [int(lengths[half])] if len(lengths) % 2 else [int(lengths[half - 1]), int(lengths[half])]
        statistics.bytes_per_sample_median = int(median(middle))
    for sample in _samples(dataset, max_samples, unreadable):
        add_sample(statistics, sample)
        if progress:
            progress(1)
    if unreadable is not None:
        unreadable.raise_if_nothing(statistics.samples_read)
    return statistics


def add_sample(statistics: Statistics, sample: Sample) -> None:
    """Count one sample."""
    record = sample.record
    statistics.samples_read += 1
    statistics.images += record.kind == "image"
    statistics.clips += record.kind == "clip"
    statistics.sources[record.origin.source] += 1
    statistics.licenses[record.origin.license] += 1
    statistics.sizes[f"{record.stored.width} x {record.stored.height}"] += 1
    pixels = record.stored.height * record.stored.width
    for number, frame in enumerate(record.frames):
        boxes = np.array(frame.proposals.boxes, np.float32).reshape(-1, 4)
        statistics.frames += 1
        statistics.num_proposals += len(boxes)
        statistics.num_negatives += len(frame.proposals.negatives)
        statistics.num_near_duplicates += count_near_duplicates(boxes)
        statistics.proposals_per_frame.add([len(boxes)])
        statistics.negatives_per_frame.add([len(frame.proposals.negatives)])
        statistics.proposal_areas.add(np.array(frame.proposals.areas) / pixels)
        statistics.proposal_scores.add(frame.proposals.scores)
        statistics.refused.update(frame.proposals.refused)
        if frame.objects is not None:
            objects = visible_boxes(record, number)
            statistics.num_objects += len(objects)
            statistics.objects_per_frame.add([len(objects)])
            statistics.object_areas.add(box_areas(objects) / pixels)


def count_near_duplicates(boxes: np.ndarray) -> int:
    """How many of the (M, 4) boxes overlap an earlier one by more than `NEAR_DUPLICATE_IOU`."""
    return int(np.triu(iou_matrix(boxes, boxes) > NEAR_DUPLICATE_IOU, k=1).any(axis=0).sum())


def _samples(dataset: Dataset, max_samples: int | None, unreadable: Unreadable | None) -> Iterator[Sample]:
    if max_samples is None or max_samples >= len(dataset.stored):
        parts = [(shard.name, iter_samples(dataset, shard)) for shard in dataset.shards]
    else:
        rows = select_rows(dataset.stored, max_samples)
        parts = [(row.shard, (read_row(dataset, each) for each in (row,))) for row in rows]
    for shard, samples in parts:
        if unreadable is not None and shard in unreadable.reasons:
            continue
        try:
            yield from samples
        except (BadShard, OSError) as error:
            if unreadable is None:
                raise
            unreadable.add(shard, error)
