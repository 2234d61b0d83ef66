"""FiftyOne's image detection folder: `data/` with the pictures, `labels.json` with the boxes of each by its name.

The format holds no masks; FiftyOne reads those from COCO's. It is written as FiftyOne documents it, without FiftyOne.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trackmill.pipeline.datasets.formats.base import ExportSample, JsonFile, MaskForm, Numbers, Target, Writer
from trackmill.pipeline.storage.urls import join


class FiftyOne(Writer):
    """`PART/data/NAME.jpg` and `PART/labels.json`; each frame of a clip is a picture, and identities are attributes."""

    def __init__(self, target: Target, masks: MaskForm | None, classes: Numbers) -> None:
        super().__init__(target, masks, classes)
        self._file = JsonFile(join(target.root, f"{target.part}/labels.json"), ("labels",))

    def add(self, sample: ExportSample) -> None:
        """Each frame is a picture."""
        size = np.array([sample.width, sample.height], np.float64)
        for frame in sample.frames:
            # A dot in a name would be taken for the beginning of its ending.
            name = frame.name.replace(".", "-")
            self.target.put(f"{self.target.part}/data/{name}.jpg", frame.jpeg)
            found = []
            for place, box in enumerate(frame.boxes):
                low, high = box.reshape(2, 2) / size
                entry: dict[str, Any] = {
                    "label": frame.labels[place],
                    "bounding_box": [round(float(side), 6) for side in (*low, *(high - low))],
                }
                if frame.scores is not None:
                    entry["confidence"] = frame.scores[place]
                if frame.ids is not None:
                    entry["attributes"] = {"identity": frame.ids[place]}
                found.append(entry)
            self._file.add_entry("labels", name, found)
            self.counts["images"] += 1
            self.counts["boxes"] += len(found)

    def finish(self) -> None:
        """`labels.json`."""
        # Without a list of classes, FiftyOne takes labels as names.
        self._file.publish({}, {}, objects=("labels",))

    def close(self) -> None:
        """Remove what was collected on disk."""
        self._file.close()
