"""TAO files for tests, made by code: ground truth and results as JSON-like values, with every oddity of real ones.

Some images carry no ground truth, an alias category is merged into another, track ids are used again in other videos,
rows come in no order, some lack `video_id`, and each video has its lists of absent and incomplete classes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from tests.evaluation.make_tracks import Faults, make_video, with_masks
from trackmill.pipeline.evaluation.tracks import Tracks, Video

NAMES = {3: "person", 8: "car", 15: "abacus", 21: "dog", 40: "gargoyle", 77: "never_there"}
RARE = ("abacus", "gargoyle", "never_there")
ALIAS = {8: 9008}
"""Category that merges another one, and that one's id."""
HEIGHT, WIDTH = 120, 160

Json = dict[str, Any]


def make_videos(seed: int, num_videos: int = 3, masks: bool = False, steps: float = 10, **size: int) -> list[Video]:
    """Problems with classes of `NAMES`, the last of which never occurs; ground truth is missing in some frames."""
    rng = np.random.default_rng(seed)
    faults = Faults(jitter=0.08, doubled=0.2, wrong_label=0.25, switch=0.05, miss=0.15)
    videos = []
    for number in range(num_videos):
        labels = tuple(rng.choice(list(NAMES)[:-1], 3).tolist())
        made = make_video(
            f"made-{'CAB'[number % 3]}-video_{number:03}",
            seed=1000 * seed + number,
            num_frames=size.get("num_frames", 12),
            num_objects=size.get("num_objects", 6),
            height=HEIGHT,
            width=WIDTH,
            labels=labels,
            faults=faults,
            steps=steps,
        )
        if masks:
            made = with_masks(made, HEIGHT, WIDTH)
        bare = rng.random(made.num_frames) < 0.15
        videos.append(replace(made, gt=made.gt.select(~bare[made.gt.frames])))
    return videos


def make_files(videos: list[Video], seed: int = 0) -> tuple[Json, list[Json]]:
    """Ground truth and results of some videos, as they would be parsed from JSON."""
    rng = np.random.default_rng(seed)
    truth: Json = {
        "info": {"description": "made"},
        "licenses": [],
        "categories": [
            {"id": label, "name": name, "frequency": "r" if name in RARE else "f"} for label, name in NAMES.items()
        ],
        "videos": [],
        "images": [],
        "tracks": [],
        "annotations": [],
    }
    for category in truth["categories"]:
        if category["id"] in ALIAS:
            category["merged"] = [{"id": ALIAS[category["id"]], "name": "alias"}]
    results: list[Json] = []
    known = list(NAMES)
    for number, video in enumerate(videos):
        video_id = 7 * number + 5
        names = rng.permutation(known).tolist()
        truth["videos"].append(
            {
                "id": video_id,
                "name": video.name.replace("-", "/"),
                "height": HEIGHT,
                "width": WIDTH,
                "neg_category_ids": names[:2],
                "not_exhaustive_category_ids": names[1:3],
            }
        )
        image_ids = (1000 * number + rng.permutation(video.num_frames)).tolist()
        for frame, image_id in enumerate(image_ids):
            truth["images"].append(
                {
                    "id": image_id,
                    "video_id": video_id,
                    "file_name": f"{video.name}/{frame:04}.jpg",
                    "height": HEIGHT,
                    "width": WIDTH,
                    "frame_index": 30 * frame,
                }
            )
        truth["annotations"] += _rows(video.gt, image_ids, video_id, is_truth=True)
        results += _rows(video.predictions, image_ids, video_id, is_truth=False)
    for rows in (truth["annotations"], results):
        rows[:] = [rows[i] for i in rng.permutation(len(rows))]
        for row in rows:
            if row["category_id"] in ALIAS and rng.random() < 0.3:
                row["category_id"] = ALIAS[row["category_id"]]
    for row in results[::3]:
        del row["video_id"]
    for number, row in enumerate(truth["annotations"]):
        row["id"] = number + 1
    truth["tracks"] = [{"id": int(i), "category_id": 3, "video_id": 5} for i in range(1)]
    rng.shuffle(truth["images"])
    return truth, results


def write_files(folder: Path, truth: Any, results: Any) -> tuple[str, str]:
    """Paths of both as JSON, each in a folder of its own."""
    paths = []
    for name, content in (("gt", truth), ("results", results)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        paths.append(folder / name / f"{name}.json")
        paths[-1].write_bytes(orjson.dumps(content))
    return str(paths[0]), str(paths[1])


def _rows(tracks: Tracks, image_ids: list[int], video_id: int, is_truth: bool) -> list[Json]:
    rows = []
    for i in range(len(tracks)):
        x0, y0, x1, y1 = tracks.boxes[i].tolist()
        row: Json = {
            "image_id": image_ids[tracks.frames[i]],
            "video_id": video_id,
            "track_id": int(tracks.ids[i]),
            "category_id": int(tracks.labels[i]),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
        }
        row |= {"iscrowd": i % 2} if is_truth else {"score": float(tracks.scores[i])}
        if tracks.masks is not None:
            mask = tracks.masks[i]
            row["segmentation"] = {"size": mask["size"], "counts": mask["counts"].decode()}
        rows.append(row)
    return rows
