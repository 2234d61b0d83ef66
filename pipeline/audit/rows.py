"""Where the negatives of a sample come from: a sidecar beside the shards, or the records of the shards themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.shards.reader import Dataset
from trackmill.pipeline.shards.tar import BadShard
from trackmill.pipeline.sidecars.about import Sidecar, Sidecars, command, find_sidecars
from trackmill.pipeline.sidecars.part import SidecarPart, read_part
from trackmill.pipeline.sidecars.producer import bad_boxes
from trackmill.pipeline.sidecars.producers.negatives import FRAMES, KEPT, NOT_ANNOTATED
from trackmill.pipeline.sidecars.tables import OtherShards, check_maker, check_shard, part_of_shard
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.urls import join
from trackmill.schemas.boxes import Boxes
from trackmill.schemas.errors import InputError
from trackmill.schemas.receipt import ShardInfo
from trackmill.schemas.sample import SampleRecord

SIDECAR = "negatives"
"""What the sidecar is called unless its maker chose another name."""
PROPOSAL_CLASS = "(proposal)"
"""Class of negatives that have none: proposals."""
_NOT_DROPPED = {KEPT, FRAMES, NOT_ANNOTATED}
"""Counts of a part that are not of detections that were left out."""
_SETTINGS = ("detector", "min_score", "max_iou")
"""Settings of the producer that a report names."""


class NoPart(InputError):
    """A part of the sidecar is missing, damaged, or of other shards; the text names it and says how to mend it."""


@dataclass(frozen=True, slots=True)
class FrameNegatives:
    """The negatives of one frame, best score first; among equal scores in stored order.

    Args:
        boxes: (N, 4) float32 `xyxy` in pixels of the stored frame.
        scores: (N,) float32.
        labels: N names of classes.
    """

    boxes: Boxes
    scores: NDArray[np.float32]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.boxes)


class NegativeRows(ABC):
    """Negatives of a data set, a shard at a time."""

    name: str
    """What to call them in a report."""
    note: str
    """A sentence about them."""
    sidecar: str = ""
    """Name of the sidecar that holds them, if one does."""
    max_iou: float = 0.0
    """IoU with an annotated object from which on a detection was left out; 0 where that is not known."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        """Detections that did not become negatives, by reason, as far as it is recorded."""
        self.quarantined: dict[str, str] = {}
        """Why the detector failed on a sample, by key."""

    @abstractmethod
    def begin_shard(self, shard: ShardInfo) -> None:
        """Make the rows of a shard ready; only one shard is open at a time.

        Raises:
            NoPart: they are missing, damaged, or describe other shards.
            OSError: storage failed for good.
        """

    @abstractmethod
    def of_sample(self, sample: SampleRecord) -> list[FrameNegatives] | None:
        """Its negatives, frame by frame; None where the detector failed on the sample.

        Raises:
            NoPart: a row of it cannot be.
        """


class RecordNegatives(NegativeRows):
    """Proposals that mining marked as negatives in the records."""

    name = "proposals of the records"
    note = "proposals that overlap no annotated object, as mining marked them in the records"

    def begin_shard(self, shard: ShardInfo) -> None:
        """See `NegativeRows.begin_shard`; the records hold everything."""

    def of_sample(self, sample: SampleRecord) -> list[FrameNegatives]:
        """See `NegativeRows.of_sample`."""
        found = []
        for frame in sample.frames:
            proposals, chosen = frame.proposals, frame.proposals.negatives
            boxes = np.array([proposals.boxes[i] for i in chosen], np.float32).reshape(-1, 4)
            scores = np.array([proposals.scores[i] for i in chosen], np.float32)
            found.append(_best_first(boxes, scores, [PROPOSAL_CLASS] * len(chosen)))
        return found


class SidecarNegatives(NegativeRows):
    """Rows of a sidecar with a column of boxes and a score.

    Args:
        sidecar: that holds them.
        root: of the data set.

    Raises:
        InputError: it lacks one of the columns.
    """

    def __init__(self, sidecar: Sidecar, root: str) -> None:
        super().__init__()
        self._sidecar, self._root = sidecar, root
        self.sidecar = sidecar.about.name
        self.name = f"sidecar {sidecar.about.name}"
        columns = {column.name: column.dtype for column in sidecar.about.columns}
        self._box = next((name for name, dtype in columns.items() if dtype == "box"), "")
        self._label = "label" if "label" in columns else ""
        if not self._box or not columns.get("score", "").startswith("float"):
            raise InputError(
                f"sidecar {sidecar.about.name}: an audit needs a column of boxes and a score; it has "
                f"{', '.join(f'{name} ({dtype})' for name, dtype in columns.items())}"
            )
        made = sidecar.about.parts.get("producer", {})
        said = sidecar.about.settings
        how = ", ".join(f"{name} {said[name]}" for name in _SETTINGS if name in said)
        self.note = f"made by {made.get('name', 'unknown')}/{made.get('version', '?')}" + (
            f" with {how}" if how else ""
        )
        self.max_iou = float(said["max_iou"]) if isinstance(said.get("max_iou"), int | float) else 0.0
        self._open: SidecarPart | None = None
        self._bad: dict[str, str] = {}

    def begin_shard(self, shard: ShardInfo) -> None:
        """See `NegativeRows.begin_shard`; shards of one unit share a part, which is read once."""
        about = self._sidecar.about
        file_name = part_of_shard(shard.name, about.name)
        if self._open is None or self._open.about.file_name != file_name:
            self._open = None  # one part in memory, not two
            self._open = self._read(file_name)
        try:
            check_shard(self._open.about, shard, self._open.where)
        except OtherShards as error:
            raise NoPart(str(error)) from None

    def of_sample(self, sample: SampleRecord) -> list[FrameNegatives] | None:
        """See `NegativeRows.of_sample`."""
        part = self._open
        assert part is not None, "begin_shard was not called"
        if sample.key in self.quarantined:
            return None
        rows = part.of_sample(sample.key)
        frames, boxes = rows["frame"], rows[self._box]
        scores = rows["score"].astype(np.float32)
        if bad_boxes(boxes, sample.stored.height, sample.stored.width).any() or not np.isfinite(scores).all():
            raise NoPart(
                f"{part.where}: rows of {sample.key} have a box outside its frame, or a score that is no number; "
                "jobs/inspect_shards.py --verify names them"
            )
        labels = rows[self._label] if self._label else np.full(len(frames), PROPOSAL_CLASS, object)
        found = []
        for number in range(len(sample.frames)):
            own = slice(*np.searchsorted(frames, [number, number + 1]))
            found.append(_best_first(boxes[own], scores[own], [str(label) or PROPOSAL_CLASS for label in labels[own]]))
        return found

    def _read(self, file_name: str) -> SidecarPart:
        if file_name in self._bad:
            raise NoPart(self._bad[file_name])
        about = self._sidecar.about
        where = f"sidecars/{about.name}/{file_name}"
        try:
            if file_name not in self._sidecar.parts:
                makes = command(self._root, about.name, about.parts.get("producer", {}).get("name", ""))
                raise NoPart(f"{where}: is missing; {makes} makes what is missing")
            part = read_part(join(self._sidecar.folder, file_name), where, about.columns)
            check_maker(part.about, self._sidecar, file_name, where)
        except (NoPart, BadShard, OtherShards) as error:
            self._bad[file_name] = str(error)
            raise NoPart(str(error)) from None
        self.dropped.update({name: n for name, n in part.about.counts.items() if n and name not in _NOT_DROPPED})
        self.quarantined = {entry.key: f"{entry.error_class}: {entry.reason}" for entry in part.about.quarantined}
        return part


def find_negatives(dataset: Dataset, sidecar: str = "", proposals: bool = False) -> NegativeRows:
    """The negatives of a data set.

    Args:
        dataset: opened for inspection.
        sidecar: its name; empty: `negatives` where there is one, and the records otherwise.
        proposals: those of the records, whatever sidecars there are.

    Raises:
        NoSidecar, SidecarError: see `trackmill.pipeline.sidecars.about.Sidecars`.
        InputError: tars alone have no sidecars, or the sidecar has no boxes or scores.
    """
    if proposals:
        return RecordNegatives()
    if dataset.layout is None or not dataset.receipts:
        if sidecar:
            raise InputError(f"--sidecar {sidecar}: tars alone have no sidecars; name the root of their data set")
        return RecordNegatives()
    found: Sidecars = find_sidecars(dataset.layout)
    if not sidecar and SIDECAR not in {*found.by_name, *found.damaged}:
        return RecordNegatives()
    return SidecarNegatives(found[sidecar or SIDECAR], redact(dataset.url))


def _best_first(boxes: Boxes, scores: NDArray[np.float32], labels: list[str]) -> FrameNegatives:
    order = np.argsort(-scores, kind="stable")
    return FrameNegatives(boxes[order], scores[order], tuple(labels[i] for i in order))
