"""YouTube-VIS: one JSON with a row a track, which has an element a frame, beside the frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trackmill.pipeline.datasets.formats.base import ExportSample, JsonFile, MaskForm, Numbers, Target, Writer, xywh
from trackmill.pipeline.datasets.formats.coco import INFO, segmentation
from trackmill.pipeline.storage.urls import join
from trackmill.schemas.masks import mask_area


@dataclass(slots=True)
class _Track:
    category: int
    masks: list[Any]
    boxes: list[Any]
    areas: list[Any]


class YoutubeVis(Writer):
    """`PART/instances.json`, and the frames in `PART/JPEGImages/KEY/`; a clip is a video."""

    identities = True
    clips_only = True
    mask_forms = ("rle",)

    def __init__(self, target: Target, masks: MaskForm | None, classes: Numbers) -> None:
        super().__init__(target, masks, classes)
        self._file = JsonFile(join(target.root, f"{target.part}/instances.json"), ("videos", "annotations"))
        self._licenses = Numbers()

    def add(self, sample: ExportSample) -> None:
        """A clip is a video; its tracks are complete with it."""
        self.counts["videos"] += 1
        video, length = self.counts["videos"], len(sample.frames)
        names = [f"{sample.key}/{number:05d}.jpg" for number in range(length)]
        size = {"height": sample.height, "width": sample.width, "length": length}
        license_ = self._licenses[sample.license]
        self._file.add("videos", {"id": video, "file_names": names, "license": license_, "fps": sample.fps, **size})
        tracks: dict[int, _Track] = {}
        for number, frame in enumerate(sample.frames):
            self.target.put(f"{self.target.part}/JPEGImages/{names[number]}", frame.jpeg)
            self.counts["images"] += 1
            for place, identity in enumerate(frame.ids or ()):
                track = tracks.get(identity)
                if track is None:
                    empty: list[list[Any]] = [[None] * length for _ in range(3)]
                    track = tracks[identity] = _Track(self.classes[frame.labels[place]], *empty)
                mask = frame.masks[place] if frame.masks is not None else None
                box = xywh(frame.boxes[place])
                track.boxes[number] = box
                track.areas[number] = mask_area(mask) if mask is not None else round(box[2] * box[3], 2)
                self.counts["boxes"] += 1
                if mask is not None and self.masks:
                    track.masks[number] = segmentation(mask, sample.height, sample.width, self.masks)
                    self.counts["masks"] += 1
        for track in tracks.values():
            self.counts["tracks"] += 1
            row = {
                "id": self.counts["tracks"],
                "video_id": video,
                "category_id": track.category,
                "segmentations": track.masks,
                "bboxes": track.boxes,
                "areas": track.areas,
                "iscrowd": 0,
                **size,
            }
            self._file.add("annotations", row)

    def finish(self) -> None:
        """The JSON file."""
        names = self.classes.of or {"object": 1}
        categories = [{"id": number, "name": name, "supercategory": ""} for name, number in names.items()]
        licenses = [{"id": number, "name": name, "url": ""} for name, number in self._licenses.of.items()]
        self._file.publish({"info": INFO, "licenses": licenses}, {"categories": categories})

    def close(self) -> None:
        """Remove what was collected on disk."""
        self._file.close()
