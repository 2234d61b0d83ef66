"""YOLO: a text file a picture, one row a box (class, centre, size) or a polygon, as shares of the picture's sides."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.datasets.formats.base import ExportFrame, ExportSample, Writer
from trackmill.pipeline.datasets.formats.polygons import polygons
from trackmill.pipeline.formats.export_note import part_of
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.storage.urls import basename, join


class Yolo(Writer):
    """`images/PART/NAME.jpg`, `labels/PART/NAME.txt`, and `data.yaml` over all parts that are there.

    Boxes are cut at the border of the picture; one that lies outside is left out.
    """

    mask_forms = ("polygon",)
    masks_by_themselves = False  # one file cannot hold both, and detectors want boxes

    def add(self, sample: ExportSample) -> None:
        """Each frame is a picture."""
        for frame in sample.frames:
            self.target.put(f"images/{self.target.part}/{frame.name}.jpg", frame.jpeg)
            rows = self._rows(frame, sample.height, sample.width)
            self.target.put(f"labels/{self.target.part}/{frame.name}.txt", "".join(rows).encode())
            self.counts["images"] += 1

    def finish(self) -> None:
        """`data.yaml`."""
        names = list(self.classes.of) or ["object"]
        parts = sorted({*self._other_parts(), self.target.part})
        train = "train" if "train" in parts else parts[0]
        val = next((part for part in ("val", "valid", "test") if part in parts), train)
        lines = [f"train: images/{train}", f"val: images/{val}"]
        lines += [f"{part}: images/{part}" for part in parts if part not in (train, val)]
        lines += ["names:", *(f"  {number}: {json.dumps(name)}" for number, name in enumerate(names))]
        publish_bytes(join(self.target.root, "data.yaml"), ("\n".join(lines) + "\n").encode())

    def _rows(self, frame: ExportFrame, height: int, width: int) -> list[str]:
        rows = []
        size = np.array([width, height], np.float64)
        for place, box in enumerate(frame.boxes):
            number = self.classes[frame.labels[place]] - 1
            corners = np.clip(box.reshape(2, 2) / size, 0, 1)
            mask = frame.masks[place] if frame.masks is not None else None
            if self.masks and mask is not None:
                for points in polygons(mask)[:1]:  # a row has one outline
                    rows.append(f"{number} {_numbers(np.clip(points / size, 0, 1))}\n")
                    self.counts["masks"] += 1
            elif (corners[1] > corners[0]).all():
                shape = np.concatenate([corners.mean(0), corners[1] - corners[0]])
                rows.append(f"{number} {_numbers(shape)}\n")
                self.counts["boxes"] += 1
        return rows

    def _other_parts(self) -> set[str]:
        """Parts that earlier calls wrote into the same output."""
        try:
            files = list_files(self.target.root)
        except FileNotFoundError:
            return set()
        return {part for file in files if (part := part_of(basename(file.uri))) is not None}


def _numbers(values: NDArray[np.float64]) -> str:
    return " ".join(f"{value:.6f}" for value in values.reshape(-1))
