"""Which boxes go out: annotated objects, proposals, or the rows of a sidecar."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from trackmill.pipeline.datasets.formats.base import ONE_CLASS, ExportFrame, ExportSample
from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.shards.reader import Dataset, iter_samples
from trackmill.pipeline.sidecars.about import find_sidecars
from trackmill.pipeline.sidecars.part import BadPart
from trackmill.pipeline.sidecars.tables import SidecarTables
from trackmill.pipeline.storage.credentials import redact
from trackmill.schemas.errors import InputError
from trackmill.schemas.sample import FrameRecord

OBJECTS, PROPOSALS = "objects", "proposals"
_IDENTITIES = ("chain", "id", "track")
"""A column of whole numbers with one of these names says who is who."""
_LABELS = ("label", "category", "class")


class Boxes:
    """Reads samples with the boxes that were asked for.

    Args:
        dataset: opened.
        which: `objects`, `proposals` or the name of a sidecar.
        masks: whether masks are wanted.
        min_score: boxes below it are left out.

    Raises:
        NoSidecar: there is none of this name; says which there are.
        InputError: it has no column of boxes.
    """

    def __init__(self, dataset: Dataset, which: str, *, masks: bool, min_score: float = 0.0) -> None:
        self._dataset, self._which, self._masks, self._min_score = dataset, which, masks, min_score
        self.left_out: Counter[str] = Counter()
        """What was left out, by reason."""
        self._tables: SidecarTables | None = None
        self._columns = {"box": "", "id": "", "score": "", "label": ""}
        if which not in (OBJECTS, PROPOSALS):
            self._open_sidecar()

    @property
    def identities(self) -> bool:
        """Whether they say who is who."""
        return self._which == OBJECTS or bool(self._columns["id"])

    def samples(self, limit: int | None = None) -> Iterator[ExportSample | None]:
        """All samples in the order of the shards, streaming; None for each that is left out.

        Raises:
            BadShard: a shard is damaged.
            BadPart, OtherShards, NoSidecar: the sidecar is damaged, of other shards, or not whole.
            OSError: could not be read.
        """
        count = 0
        for shard in self._dataset.shards:
            for sample in iter_samples(self._dataset, shard):
                if limit is not None and count >= limit:
                    return
                count += 1
                yield self._sample(sample)

    def _sample(self, sample: Sample) -> ExportSample | None:
        record = sample.record
        try:
            frames = [each for number in range(len(record.frames)) if (each := self._frame(sample, number))]
        except _Quarantined:
            self.left_out["samples that are quarantined in the sidecar"] += 1
            return None
        if not frames:
            return None
        return ExportSample(
            key=sample.key,
            clip=record.kind == "clip",
            height=record.stored.height,
            width=record.stored.width,
            fps=record.clip.label_fps if record.clip else None,
            license=record.origin.license,
            frames=frames,
        )

    def _frame(self, sample: Sample, number: int) -> ExportFrame | None:
        record = sample.record.frames[number]
        if self._which == OBJECTS:
            if record.objects is None or not sample.record.origin.annotated:
                # An image without boxes would say that nothing is there.
                self.left_out["frames whose objects are not known"] += 1
                return None
            # Of what people annotated the score is 1, and says nothing.
            scores = record.objects.scores if any(score != 1 for score in record.objects.scores) else None
            found = self._found(record, record.objects.boxes, scores, record.objects.ids)
            masks = sample.objects_masks(number) if self._masks and sample.masks_json else None
        elif self._which == PROPOSALS:
            found = self._found(record, record.proposals.boxes, record.proposals.scores, None)
            masks = sample.proposal_masks(number) if self._masks and sample.masks_json else None
        else:
            found, masks = self._of_sidecar(sample, number), None
        found.jpeg = sample.jpegs[number]
        found.masks = masks
        return self._kept(found)

    def _found(
        self, record: FrameRecord, boxes: list[list[float]], scores: list[float] | None, ids: list[int] | None
    ) -> ExportFrame:
        return ExportFrame(
            name=record.member.removesuffix(".jpg"),
            jpeg=b"",
            boxes=np.array(boxes, np.float64).reshape(-1, 4),
            ids=ids,
            scores=scores,
            labels=[ONE_CLASS] * len(boxes),
            masks=None,
            index=record.index,
        )

    def _kept(self, frame: ExportFrame) -> ExportFrame:
        """Without boxes of too low a score."""
        if frame.scores is None or self._min_score <= 0:
            return frame
        kept = [place for place, score in enumerate(frame.scores) if score >= self._min_score]
        self.left_out[f"boxes with a score below {self._min_score:g}"] += len(frame.scores) - len(kept)
        frame.boxes = frame.boxes[kept]
        frame.labels = [frame.labels[place] for place in kept]
        frame.scores = [frame.scores[place] for place in kept]
        frame.ids = None if frame.ids is None else [frame.ids[place] for place in kept]
        frame.masks = None if frame.masks is None else [frame.masks[place] for place in kept]
        return frame

    def _open_sidecar(self) -> None:
        if self._dataset.layout is None:
            raise InputError(f"--boxes {self._which}: tars alone have no sidecars; name the root of their data set")
        self._tables = SidecarTables(find_sidecars(self._dataset.layout), self._dataset.shards)
        kinds = {column.name: column.dtype for column in self._tables.sidecars[self._which].about.columns}
        box = next((name for name, kind in kinds.items() if kind == "box"), "")
        if not box:
            raise InputError(
                f"--boxes {self._which}: this sidecar of {redact(self._dataset.url)} has no column of boxes, only "
                f"{', '.join(kinds)}"
            )
        self._columns = {
            "box": box,
            "id": next((name for name in _IDENTITIES if kinds.get(name) in ("int32", "int64")), ""),
            "score": "score" if kinds.get("score", "").startswith("float") else "",
            "label": next((name for name in _LABELS if kinds.get(name) == "string"), ""),
        }

    def _of_sidecar(self, sample: Sample, number: int) -> ExportFrame:
        assert self._tables is not None
        part = self._tables.part(self._which, sample.shard)
        if part.quarantined(sample.key):
            raise _Quarantined
        rows = part.of_frame(sample.key, number)
        columns = self._columns
        boxes = rows[columns["box"]].astype(np.float64)
        return ExportFrame(
            name=sample.record.frames[number].member.removesuffix(".jpg"),
            jpeg=b"",
            boxes=np.round(boxes, 2),
            ids=rows[columns["id"]].tolist() if columns["id"] else None,
            scores=[round(float(score), 4) for score in rows[columns["score"]]] if columns["score"] else None,
            labels=[str(label) for label in rows[columns["label"]]] if columns["label"] else [ONE_CLASS] * len(boxes),
            masks=None,
            index=sample.record.frames[number].index,
        )


class _Quarantined(BadPart):
    """A sample of which the sidecar has no rows."""

    def __init__(self) -> None:
        super().__init__("quarantined")
