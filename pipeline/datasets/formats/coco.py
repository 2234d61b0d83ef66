"""COCO's detection files, and COCO-VID: one JSON with images and annotations beside the pictures.

COCO-VID adds `videos`, and to each image and annotation which of them it is of; track ids are unique over the file, as
TAO's tools want, and stand as `track_id` and as `instance_id`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.datasets.formats.base import (
    ExportFrame,
    ExportSample,
    JsonFile,
    MaskForm,
    Numbers,
    Target,
    Writer,
    xywh,
)
from trackmill.pipeline.datasets.formats.polygons import polygons
from trackmill.pipeline.storage.urls import join
from trackmill.schemas.masks import CroppedMask, mask_area, to_coco_rle

INFO = {"description": "Written by trackmill export-data", "version": "1"}


class Coco(Writer):
    """`annotations/instances_PART.json`, and the pictures in `PART/`; each frame of a clip is a picture."""

    mask_forms = ("rle", "polygon")
    lists: tuple[str, ...] = ("images", "annotations")
    file_name = "instances_{part}.json"

    def __init__(self, target: Target, masks: MaskForm | None, classes: Numbers) -> None:
        super().__init__(target, masks, classes)
        path = f"annotations/{self.file_name.format(part=target.part)}"
        self._file = JsonFile(join(target.root, path), self.lists)
        self._licenses = Numbers()

    def add(self, sample: ExportSample) -> None:
        """Each frame is a picture."""
        for frame in sample.frames:
            self._image(sample, frame, f"{frame.name}.jpg", {}, None)

    def finish(self) -> None:
        """The JSON file."""
        licenses = [{"id": number, "name": name, "url": ""} for name, number in self._licenses.of.items()]
        categories = [{"id": number, "name": name, "supercategory": ""} for name, number in self.classes.of.items()]
        if not categories:
            categories = [{"id": 1, "name": "object", "supercategory": ""}]
        self._file.publish({"info": INFO, "licenses": licenses}, {"categories": categories})

    def close(self) -> None:
        """Remove what was collected on disk."""
        self._file.close()

    def _image(
        self,
        sample: ExportSample,
        frame: ExportFrame,
        file_name: str,
        more: dict[str, Any],
        tracks: dict[int, int] | None,
    ) -> None:
        self.target.put(f"{self.target.part}/{file_name}", frame.jpeg)
        self.counts["images"] += 1
        image = self.counts["images"]
        entry = {
            "id": image,
            "file_name": file_name,
            "height": sample.height,
            "width": sample.width,
            "license": self._licenses[sample.license],
            "key": sample.key,
        }
        self._file.add("images", entry | more)
        for place, box in enumerate(frame.boxes):
            self.counts["annotations"] += 1
            mask = frame.masks[place] if frame.masks is not None else None
            row: dict[str, Any] = {
                "id": self.counts["annotations"],
                "image_id": image,
                "category_id": self.classes[frame.labels[place]],
                "bbox": xywh(box),
                "area": mask_area(mask) if mask is not None else _area(box),
                "iscrowd": 0,
            }
            if mask is not None and self.masks:
                row["segmentation"] = segmentation(mask, sample.height, sample.width, self.masks)
                self.counts["masks"] += 1
            if frame.scores is not None:
                row["score"] = frame.scores[place]
            if tracks is not None and frame.ids is not None:
                track = tracks.get(frame.ids[place])
                if track is None:
                    self.counts["tracks"] += 1
                    track = tracks[frame.ids[place]] = self.counts["tracks"]
                    self._track(track, more["video_id"], row["category_id"])
                row |= {"video_id": more["video_id"], "track_id": track, "instance_id": track}
            self._file.add("annotations", row)

    def _track(self, track: int, video: int, category: int) -> None:
        """A track is met for the first time."""


class CocoVid(Coco):
    """The same with videos: `annotations/PART.json`, and the frames in `PART/KEY/`."""

    identities = True
    clips_only = True
    lists = ("videos", "tracks", "images", "annotations")
    file_name = "{part}.json"

    def add(self, sample: ExportSample) -> None:
        """A clip is a video."""
        self.counts["videos"] += 1
        video = self.counts["videos"]
        entry = {"id": video, "name": sample.key, "height": sample.height, "width": sample.width, "fps": sample.fps}
        # TAO's tools ask for both lists; nothing is known to be absent.
        self._file.add("videos", entry | {"neg_category_ids": [], "not_exhaustive_category_ids": []})
        tracks: dict[int, int] = {}
        for number, frame in enumerate(sample.frames):
            more = {
                "video_id": video,
                "frame_id": number,
                "frame_index": number,
                "video": sample.key,
                "source_frame": frame.index,
            }
            self._image(sample, frame, f"{sample.key}/{number:06d}.jpg", more, tracks)

    def _track(self, track: int, video: int, category: int) -> None:
        self._file.add("tracks", {"id": track, "video_id": video, "category_id": category})


def segmentation(mask: CroppedMask, height: int, width: int, form: MaskForm) -> Any:
    """A mask as COCO has it: run lengths of the whole frame, or polygons `[x0, y0, x1, y1, ...]`.

    Raises:
        ValueError: the mask is broken.
    """
    if form == "rle":
        return to_coco_rle(mask, height, width)
    return [np.round(points, 2).reshape(-1).tolist() for points in polygons(mask)]


def _area(box: NDArray[np.float64]) -> float:
    return round(float((box[2] - box[0]) * (box[3] - box[1])), 2)
