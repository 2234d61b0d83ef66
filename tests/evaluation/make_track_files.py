"""The problems of `make_tracks.py` as files: MOTChallenge folders and TAO JSON, in the ways the benchmarks differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tests.evaluation.make_tracks import Faults, make_video, with_masks
from trackmill.pipeline.evaluation.tracks import Tracks, Video

Style = Literal["mot15", "mot17", "mot20", "dancetrack", "sportsmot"]

_SPLITS: dict[str, str] = {
    "mot15": "MOT15-train",
    "mot17": "MOT17-train",
    "mot20": "MOT20-train",
    "dancetrack": "DanceTrack-val",
    "sportsmot": "SportsMOT-val",
}
_NAMES: dict[str, Callable[[int], str]] = {
    "mot15": lambda number: f"Street-{number}",
    "mot17": lambda number: f"MOT17-{number:02d}-SDP",
    "mot20": lambda number: f"MOT20-{number:02d}",
    "dancetrack": lambda number: f"dancetrack{number:04d}",
    "sportsmot": lambda number: f"v_made_c{number:03d}",
}
_CLASSES: dict[str, tuple[int, ...]] = {
    "mot17": (*[1] * 8, 2, 3, 4, 5, 6, 7, 7, 8, 9, 10, 11, 12),
    "mot20": (*[1] * 8, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10, 11, 12, 13),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MotFiles:
    """Where a generated benchmark lies.

    Args:
        root: all of it: `gt/seqmaps/SPLIT.txt`, `gt/SPLIT/SEQUENCE/{gt/gt.txt,seqinfo.ini}`, `results/SEQUENCE.txt`.
        gt: the folder of sequences, `root/gt/SPLIT`.
        results: the flat folder of result files.
        names: of the sequences.
    """

    root: Path
    gt: Path
    results: Path
    names: tuple[str, ...]


def mot_videos(style: Style, *, seed: int = 0, count: int = 2, **options: Any) -> list[Video]:
    """Problems with the classes and names of a benchmark; `options` go to `make_video`."""
    return [
        make_video(_NAMES[style](number + 1), seed=seed + number, labels=_CLASSES.get(style, (1,)), **options)
        for number in range(count)
    ]


def write_mot(root: Path, videos: Sequence[Video], style: Style, seed: int = 0) -> MotFiles:
    """Write ground truth and results of a benchmark.

    What is particular to a style:
        mot15: rows with flag 0; world coordinates in columns 8 to 10, floats or -1.
        mot17, mot20: all classes, flag 0 on most that are no pedestrians and on some that are; rows by identity.
            mot20's results have 7 columns.
        dancetrack: every row ends in 1,1,1, results are not sorted by frame.
        sportsmot: a blank after each comma, whole pixels, identities from 0, rows end in 1, 1, 1.
    """
    rng = np.random.default_rng(seed)
    split = _SPLITS[style]
    gt_folder, results = root / "gt" / split, root / "results"
    results.mkdir(parents=True)
    (root / "gt" / "seqmaps").mkdir(parents=True)
    (root / "gt" / "seqmaps" / f"{split}.txt").write_text("\n".join(["name", *(video.name for video in videos)]) + "\n")
    for video in videos:
        folder = gt_folder / video.name
        (folder / "gt").mkdir(parents=True)
        (folder / "gt" / "gt.txt").write_text(_text(_gt_rows(rng, video.gt, style), style))
        (folder / "seqinfo.ini").write_text(
            f"[Sequence]\nname={video.name}\nimDir=img1\nframeRate=30\nseqLength={video.num_frames}\n"
            "imWidth=640\nimHeight=480\nimExt=.jpg\n"
        )
        (results / f"{video.name}.txt").write_text(_text(_result_rows(rng, video.predictions, style), style))
    return MotFiles(root=root, gt=gt_folder, results=results, names=tuple(video.name for video in videos))


def _gt_rows(rng: np.random.Generator, gt: Tracks, style: Style) -> list[list[str]]:
    flags = np.ones(len(gt), np.int64)
    if style == "mot15":
        flags = (rng.random(len(gt)) >= 0.1).astype(np.int64)
    elif style in ("mot17", "mot20"):
        flags = np.where(gt.labels == 1, rng.random(len(gt)) >= 0.05, rng.random(len(gt)) < 0.1).astype(np.int64)
    rows = []
    # Real files of people come by identity, but MOT15's by frame.
    order = np.arange(len(gt)) if style == "mot15" else np.lexsort((gt.frames, gt.ids))
    for i in order:
        row = [str(gt.frames[i] + 1), str(gt.ids[i] - (style == "sportsmot")), *_box(gt.boxes[i], style), str(flags[i])]
        if style == "mot15":
            world = rng.normal(0, 8, 3).round(4).astype(str).tolist()
            row += world if rng.random() < 0.7 else ["-1", "-1", "-1"]
        elif style in ("mot17", "mot20"):
            row += [str(gt.labels[i]), f"{rng.random():.3f}"]
        else:
            row += ["1", "1"]
        rows.append(row)
    return rows


def _result_rows(rng: np.random.Generator, predictions: Tracks, style: Style) -> list[list[str]]:
    tail = [] if style == "mot20" else ["-1", "-1", "-1"]
    rows = [
        [
            str(predictions.frames[i] + 1),
            str(predictions.ids[i]),
            *_box(predictions.boxes[i], style),
            f"{predictions.scores[i]:g}",
            *tail,
        ]
        for i in range(len(predictions))
    ]
    return [rows[i] for i in rng.permutation(len(rows))] if style == "dancetrack" else rows


def _box(box: NDArray[np.float64], style: Style) -> list[str]:
    """Left, top, width and height as text."""
    decimals = 0 if style == "sportsmot" else 2
    return [f"{value:.{decimals}f}" for value in (box[0], box[1], box[2] - box[0], box[3] - box[1])]


def _text(rows: list[list[str]], style: Style) -> str:
    comma = ", " if style == "sportsmot" else ","
    return "".join(comma.join(row) + "\n" for row in rows)


_ALIAS = 9001
CATEGORIES: list[dict[str, Any]] = [
    {"id": 10, "name": "person", "synset": "person.n.01", "frequency": "f"},
    {"id": 21, "name": "car", "synset": "car.n.01", "frequency": "c", "merged": [{"id": _ALIAS, "name": "motorcar"}]},
    {"id": 32, "name": "abacus", "synset": "abacus.n.01", "frequency": "r"},
    {"id": 40, "name": "dog", "synset": "dog.n.01", "frequency": "f"},
    {"id": 62, "name": "gargoyle", "synset": "gargoyle.n.01", "frequency": "r"},
    {"id": 70, "name": "cup", "synset": "cup.n.01", "frequency": "c"},
    {"id": _ALIAS, "name": "motorcar", "synset": "unknown", "frequency": "f"},
    {"id": 9500, "name": "never seen", "synset": "never.n.01", "frequency": "r"},
]
"""Of `make_tao`: one is folded into another, one has no ground truth."""


def make_tao(
    *,
    seed: int = 0,
    num_videos: int = 3,
    num_frames: int = 12,
    num_objects: int = 5,
    faults: Faults | None = None,
    masks: bool = False,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """TAO ground truth and results: a problem of 120 x 160 pixels for each video.

    About a tenth of the images have no annotations, although the tracker finds something there. Some cars carry the
    category that is merged into cars. The tracker counts its tracks from 0 in every video.
    """
    rng = np.random.default_rng(seed)
    height, width = 120, 160
    labels = tuple(entry["id"] for entry in CATEGORIES if entry["id"] not in (_ALIAS, 9500))
    gt: dict[str, Any] = {
        "info": {"description": "made by code"},
        "licenses": [],
        "categories": [dict(entry) for entry in CATEGORIES],
        "videos": [],
        "images": [],
        "tracks": [],
        "annotations": [],
    }
    results: list[dict[str, Any]] = []
    for video_id in range(1, num_videos + 1):
        video = make_video(
            f"made/video_{video_id:03d}",
            seed=seed * 1000 + video_id,
            num_frames=num_frames,
            num_objects=num_objects,
            height=height,
            width=width,
            labels=labels,
            faults=faults,
        )
        annotated = rng.random(num_frames) >= 0.1
        video = replace(video, gt=video.gt.select(annotated[video.gt.frames]))
        video = with_masks(video, height, width) if masks else video
        not_here = [label for label in labels if label not in set(video.gt.labels.tolist())]
        size = {"width": width, "height": height}
        lists = {"neg_category_ids": not_here[:2], "not_exhaustive_category_ids": [int(rng.choice(labels))]}
        gt["videos"].append({"id": video_id, "name": video.name, **size, **lists, "metadata": {"dataset": "made"}})
        first_image = len(gt["images"]) + 1
        gt["images"] += [
            {
                "id": first_image + frame,
                "video_id": video_id,
                "file_name": f"{video.name}/frame{30 * frame + 1:04d}.jpg",
                "frame_index": 30 * frame,
                **size,
            }
            for frame in range(num_frames)
        ]
        tracks: dict[int, dict[str, Any]] = {}
        for i, (row, box) in enumerate(zip(_tao_rows(video.gt), video.gt.boxes)):
            track = tracks.get(int(video.gt.ids[i]))
            if track is None:
                label = int(video.gt.labels[i])
                label = _ALIAS if label == 21 and rng.random() < 0.5 else label
                track = {"id": len(gt["tracks"]) + len(tracks) + 1, "category_id": label, "video_id": video_id}
                tracks[int(video.gt.ids[i])] = track
            gt["annotations"].append(
                {
                    "id": len(gt["annotations"]) + 1,
                    "image_id": first_image + int(video.gt.frames[i]),
                    "video_id": video_id,
                    "track_id": track["id"],
                    "category_id": track["category_id"],
                    "area": round(float((box[2] - box[0]) * (box[3] - box[1])), 2),
                    "iscrowd": int(rng.random() < 0.02),
                    **row,
                }
            )
        gt["tracks"] += tracks.values()
        numbers = {name: number for number, name in enumerate(dict.fromkeys(video.predictions.ids.tolist()))}
        for i, row in enumerate(_tao_rows(video.predictions)):
            label = int(video.predictions.labels[i])
            results.append(
                {
                    "image_id": first_image + int(video.predictions.frames[i]),
                    "video_id": video_id,
                    "track_id": numbers[int(video.predictions.ids[i])],
                    "category_id": _ALIAS if label == 21 and rng.random() < 0.3 else label,
                    "score": float(video.predictions.scores[i]),
                    **row,
                }
            )
    return gt, results


def _tao_rows(tracks: Tracks) -> list[dict[str, Any]]:
    """What ground truth and results write alike: the box `x, y, width, height` and the mask."""
    rows = []
    for i, box in enumerate(tracks.boxes):
        row: dict[str, Any] = {"bbox": [round(float(v), 2) for v in (*box[:2], box[2] - box[0], box[3] - box[1])]}
        if tracks.masks is not None:
            mask = tracks.masks[i]
            row["segmentation"] = {"size": mask["size"], "counts": mask["counts"].decode()}
        rows.append(row)
    return rows
