"""MOTChallenge, and CVAT's "MOT 1.1": a text file a sequence, one row a box: frame, id, x, y, width, height, ...

Frames count from 1, x and y are as everywhere else here (TrackEval takes them so). In MOTChallenge's files the class is
1, the only one that counts as an object there; in CVAT's it is a line of `gt/labels.txt`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable

from trackmill.pipeline.datasets.formats.base import ExportSample, Numbers, Writer, xywh
from trackmill.pipeline.storage.publish import publish_file
from trackmill.pipeline.storage.scratch import scratch_file
from trackmill.pipeline.storage.urls import join

_LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The same clip gives the same bytes."""


class Mot(Writer):
    """`PART/KEY/` with `img1/`, `gt/gt.txt` and `seqinfo.ini`; a clip is a sequence."""

    identities = True
    clips_only = True

    def add(self, sample: ExportSample) -> None:
        """A clip is a sequence."""
        folder = f"{self.target.part}/{sample.key}"
        for number, frame in enumerate(sample.frames, 1):
            self.target.put(f"{folder}/img1/{number:06d}.jpg", frame.jpeg)
        rows = _rows(sample, lambda label: 1)
        self.target.put(f"{folder}/gt/gt.txt", "".join(rows).encode())
        lines = {
            "name": sample.key,
            "imDir": "img1",
            "frameRate": f"{sample.fps:g}",
            "seqLength": len(sample.frames),
            "imWidth": sample.width,
            "imHeight": sample.height,
            "imExt": ".jpg",
        }
        text = "".join(f"{name}={value}\n" for name, value in lines.items())
        self.target.put(f"{folder}/seqinfo.ini", f"[Sequence]\n{text}".encode())
        self._count(sample, len(rows))

    def finish(self) -> None:
        """Nothing is left to be written."""

    def _count(self, sample: ExportSample, rows: int) -> None:
        self.counts["videos"] += 1
        self.counts["images"] += len(sample.frames)
        self.counts["boxes"] += rows


class Cvat(Mot):
    """`PART/KEY.zip` for each clip, as CVAT takes it: frames, `gt/gt.txt` and `gt/labels.txt`."""

    def add(self, sample: ExportSample) -> None:
        """A clip is a task."""
        url = join(self.target.root, f"{self.target.part}/{sample.key}.zip")
        classes = Numbers()
        rows = _rows(sample, lambda label: classes[label])
        path = scratch_file(url)
        try:
            with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
                for number, frame in enumerate(sample.frames, 1):
                    archive.writestr(zipfile.ZipInfo(f"img1/{number:06d}.jpg", _LONG_AGO), frame.jpeg)
                names = list(classes.of) or ["object"]
                archive.writestr(zipfile.ZipInfo("gt/labels.txt", _LONG_AGO), "".join(f"{name}\n" for name in names))
                archive.writestr(zipfile.ZipInfo("gt/gt.txt", _LONG_AGO), "".join(rows))
            publish_file(path, url)
        finally:
            path.unlink(missing_ok=True)
        self._count(sample, len(rows))


def _rows(sample: ExportSample, class_of: Callable[[str], int]) -> list[str]:
    """Rows of the ground truth: nine columns, of which the seventh says that it counts, the last that it is seen."""
    rows = []
    for number, frame in enumerate(sample.frames, 1):
        for place, identity in enumerate(frame.ids or ()):
            x, y, width, height = xywh(frame.boxes[place])
            box = f"{x:.2f},{y:.2f},{width:.2f},{height:.2f}"
            rows.append(f"{number},{identity},{box},1,{class_of(frame.labels[place])},1\n")
    return rows
