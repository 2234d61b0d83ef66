"""Reads MOTChallenge ground truth and results that were converted to COCO-VID JSON."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from trackmill.pipeline.evaluation.overlaps import Iou
from trackmill.pipeline.evaluation.readers.coco_video import read_coco_video
from trackmill.pipeline.evaluation.tracks import Video
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.list_files import list_files

SCORED = 1
"""MOTChallenge's number for the scored class."""
OTHER_CLASSES = {
    "person on vehicle": 2,
    "car": 3,
    "bicycle": 4,
    "motorbike": 5,
    "non mot vehicle": 6,
    "static person": 7,
    "distractor": 8,
    "occluder": 9,
    "occluder on ground": 10,
    "occluder full": 11,
    "reflection": 12,
    "crowd": 13,
}
"""MOTChallenge's numbers for the classes that it annotates but does not score."""


def is_json(url: str) -> bool:
    """Whether a URL names a JSON file, or a folder that holds JSON and neither text nor an archive.

    Raises:
        FileNotFoundError: there is nothing at that URL.
    """
    names = [file.uri.lower() for file in list_files(url)]
    return any(name.endswith((".json", ".json.gz")) for name in names) and not any(
        name.endswith((".txt", ".zip")) for name in names
    )


def read_mot_json(
    gt: str, results: str, scored: Collection[str], iou: Iou, sequences: Sequence[str] | None
) -> tuple[list[Video], tuple[str, ...]]:
    """Videos with MOTChallenge's class numbers as labels, and notes for the report.

    Args:
        gt, results: see `read_coco_video`.
        scored: accepted names of the scored class; if a file has a single category, that one is scored.
        iou: "mask" reads the masks too.
        sequences: names of the sequences to read; None reads all.

    Raises:
        BadTracks: a file that cannot be evaluated, a category that MOTChallenge does not know, or results of another
            category than the scored one.
        OSError: a file that cannot be read.
    """
    content = read_coco_video(gt, results, iou=iou, sequences=sequences)
    numbers = {}
    for category in content.categories:
        name = category.name.lower().replace("_", " ").replace("-", " ")
        is_scored = name in scored or len(content.categories) == 1
        number = SCORED if is_scored else OTHER_CLASSES.get(name)
        if number is None:
            listed = ", ".join([*scored, *OTHER_CLASSES])
            raise BadTracks(f"{redact(gt)}: category {category.name!r} is none of MOTChallenge's: {listed}")
        numbers[category.id] = number
    known = np.array(sorted(numbers), np.int64)
    to_number = np.array([numbers[label] for label in known.tolist()], np.int64)
    videos = []
    for entry in content.videos:
        video = entry.video
        gt_labels = to_number[np.searchsorted(known, video.gt.labels)]
        pred_labels = to_number[np.searchsorted(known, video.predictions.labels)]
        if (pred_labels != SCORED).any():
            raise BadTracks(
                f"{redact(results)}: {video.name}: holds other categories than the scored one; leave them out"
            )
        videos.append(
            replace(
                video,
                gt=replace(video.gt, labels=gt_labels),
                predictions=replace(video.predictions, labels=pred_labels),
            )
        )
    return videos, content.notes
