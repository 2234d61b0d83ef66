"""TAO and COCO-VID files: one JSON of ground truth, and results as flat lists of boxes (or masks) with track ids.

Ground truth: `{"videos": [{id, name, neg_category_ids, not_exhaustive_category_ids}], "images": [{id, video_id,
frame_index or frame_id, file_name, height, width}], "annotations": [{image_id, video_id, track_id, category_id, bbox}],
"categories": [{id, name, frequency, merged}]}`. Results: `[{image_id, video_id, track_id, category_id, bbox, score}]`,
or an object with such a list under `annotations`. `bbox` is `[x, y, width, height]` in pixels; masks are under
`segmentation`. Optional are `video_id` of a box, both category lists of a video, and all of a category but id and name.

As in `datasets/tao.py` of SysCV/tet and of TrackEval 1.3.0, categories listed as `merged` count as the one that lists
them, in both files; track ids are unique within a video only; rows of an image keep the order of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.evaluation.class_vote import vote
from trackmill.pipeline.evaluation.overlaps import Iou
from trackmill.pipeline.evaluation.readers.coco_index import Category, Index, read_index
from trackmill.pipeline.evaluation.readers.coco_rows import BoxRows, best_places, join_rows, read_rows, sort_rows
from trackmill.pipeline.evaluation.readers.mot_layout import choose_sequences
from trackmill.pipeline.evaluation.tracks import Video
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.formats.json_columns import objects
from trackmill.pipeline.formats.json_files import json_files, load_json
from trackmill.pipeline.formats.segmentations import brief
from trackmill.pipeline.storage.credentials import redact

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CocoVideo:
    """One video, and the category lists of its ground truth.

    Args:
        video: has a time step for each image, also where nothing is annotated.
        gt_places, prediction_places: place in the file of each row of `video.gt` and `video.predictions`.
        negative, not_exhaustive: categories known to be absent, and those of which not every object is annotated.
    """

    video: Video
    gt_places: Ints
    prediction_places: Ints
    negative: frozenset[int]
    not_exhaustive: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoVideos:
    """Ground truth and results together.

    Args:
        videos: sorted by name.
        categories: in the order of the file.
        labels: categories with ground truth in these videos, in the order of `categories`.
        most_predictions: largest number of predictions in an image, before any limit.
        notes: for the report.
    """

    videos: tuple[CocoVideo, ...]
    categories: tuple[Category, ...]
    labels: tuple[int, ...]
    most_predictions: int
    notes: tuple[str, ...]


def read_coco_video(
    gt: str,
    results: str,
    *,
    iou: Iou = "box",
    sequences: Sequence[str] | None = None,
    max_detections: int = 0,
    class_vote: bool = False,
) -> CocoVideos:
    """Read ground truth and results.

    Args:
        gt: URL of one JSON (gzip allowed), or of a folder that holds just one.
        results: the same, or a folder of several files, whose lists are concatenated.
        iou: "mask" reads `segmentation` from both; boxes may then be missing.
        sequences: names of the videos to read; `/` and `-` in names are the same. None reads all.
        max_detections: number of predictions to keep in each image, the best by score; 0 keeps all.
        class_vote: give every predicted track the class that most of its boxes have.

    Raises:
        BadTracks: a file that cannot be evaluated; names file, index and key.
        OSError: a file that cannot be read.
    """
    gt_files = [file.uri for file in json_files(gt)]
    if len(gt_files) > 1:
        raise BadTracks(f"{redact(gt)}: holds {len(gt_files)} JSON files; name the one with the ground truth")
    path = redact(gt_files[0])
    content = load_json(gt_files[0])
    index = read_index(content, path)
    wanted = None if sequences is None else [name.replace("/", "-") for name in sequences]
    chosen = np.isin(index.names, choose_sequences(sorted(index.names), wanted, gt))
    truth = read_rows(objects(content["annotations"], f"{path}: annotations"), index, iou)
    truth = replace(truth, scores=np.ones(len(truth)))
    del content
    notes: list[str] = []
    result_rows = _read_results(results, index, iou, notes)
    for what, rows in (("ground truth", truth), ("results", result_rows)):
        if rows.num_absent:
            notes.append(f"{what}: {rows.num_absent:,} without a mask (segmentation empty or null), taken as absent")
    places = best_places(result_rows, max_detections)
    if (places < 0).any():
        notes.append(
            f"{(places < 0).sum():,} predictions beyond the best {max_detections} of their image were left out"
        )
    # The vote counts all boxes of the file, before any limit, as when the tracker itself votes.
    voted = vote(result_rows.tracks(index), result_rows.labels) if class_vote else result_rows.labels
    gt_side = sort_rows(truth, truth.labels, np.arange(len(truth)), index, chosen)
    side = sort_rows(result_rows, voted, places, index, chosen)
    # A ground-truth track has the category of its first row in the file.
    first = np.unique(truth.tracks(index), return_index=True)[1]
    first = first[chosen[index.image_videos[truth.images[first]]]]
    labels = set(index.fold(truth.labels[first]).tolist())
    frame_names = _frame_names(index)
    return CocoVideos(
        videos=tuple(
            CocoVideo(
                video=Video(
                    name=index.names[number],
                    num_frames=len(frame_names[number]),
                    gt=gt_side.tracks.select(gt_side.of_video(number)),
                    predictions=side.tracks.select(side.of_video(number)),
                    frame_names=frame_names[number] if any(frame_names[number]) else (),
                ),
                gt_places=gt_side.places[gt_side.of_video(number)],
                prediction_places=side.places[side.of_video(number)],
                negative=index.negative[number],
                not_exhaustive=index.not_exhaustive[number],
            )
            for number in sorted(np.flatnonzero(chosen).tolist(), key=index.names.__getitem__)
        ),
        categories=index.categories,
        labels=tuple(category.id for category in index.categories if category.id in labels),
        most_predictions=int(np.bincount(result_rows.images, minlength=1).max()),
        notes=tuple(notes),
    )


def _read_results(url: str, index: Index, iou: Iou, notes: list[str]) -> BoxRows:
    """The rows of all result files, concatenated; adds to `notes`."""
    parts = []
    for file in json_files(url):
        content, path = load_json(file.uri), f"{redact(file.uri)}: "
        if isinstance(content, dict) and "annotations" in content:
            content, path = content["annotations"], f"{path}annotations"
        elif not isinstance(content, list):
            raise BadTracks(
                f"{path}should be a list of boxes with image_id, track_id, category_id, bbox and score, found "
                f"{brief(content)}"
            )
        rows = objects(content, path)
        if len(rows) and not rows.has("score"):
            notes.append(f"{redact(file.uri)}: has no scores, all count as 1")
        parts.append(read_rows(rows, index, iou))
    joined = join_rows(parts)
    if not len(joined):
        notes.append(f"{redact(url)}: no objects in the results")
    return joined


def _frame_names(index: Index) -> list[tuple[str, ...]]:
    """Names of the images of each video, in the order of time."""
    order = np.lexsort((index.image_steps, index.image_videos))
    starts = np.searchsorted(index.image_videos[order], np.arange(len(index.names) + 1)).tolist()
    names = [index.file_names[image] for image in order.tolist()]
    return [tuple(names[begin:end]) for begin, end in pairwise(starts)]
