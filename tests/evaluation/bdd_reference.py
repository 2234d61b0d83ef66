"""BDD100K's rules written down step by step, with loops and dictionaries: what the product has to equal.

CLEAR and identity follow motmetrics' events of one frame after the other; for HOTA and TETA the predictions in ignored
regions are taken out here, and TrackEval and `teta_reference` count the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco
from scipy.optimize import linear_sum_assignment

from trackmill.pipeline.evaluation.tracks import Tracks, Video, make_tracks

CLASSES = ("pedestrian", "rider", "car", "bus", "truck", "train", "motorcycle", "bicycle")
RENAMED = {"person": "pedestrian", "bike": "bicycle", "motor": "motorcycle", "van": "car", "caravan": "car"}
ALIKE = {"other person": "pedestrian", "other vehicle": "car", "trailer": "truck"}
EPS = float(np.finfo(np.float64).eps)

Frames = list[dict[str, Any]]
Label = dict[str, Any]


def videos(frames: Frames) -> dict[str, list[list[Label]]]:
    """Labels of each video by time step; each label with its plain category and what it is."""
    found: dict[str, list[list[Label]]] = {}
    for frame in sorted(frames, key=lambda frame: (frame["videoName"], frame["frameIndex"])):
        found.setdefault(frame["videoName"], []).append([_plain(label) for label in frame["labels"] or []])
    return found


def _plain(label: Label) -> Label:
    attributes = label.get("attributes") or {}
    category = RENAMED.get(label["category"], label["category"])
    box = label["box2d"]
    return {
        "id": str(label["id"]),
        "category": ALIKE.get(category, category),
        "alike": category in ALIKE,
        "crowd": bool(attributes.get("crowd")),
        "ignored": bool(attributes.get("ignored")),
        "box": [box["x1"], box["y1"], box["x2"], box["y2"]],
        "rle": label.get("rle"),
    }


def clear_by_loops(gt: Frames, results: Frames, masks: bool = False) -> dict[str, dict[str, float]]:
    """Counts of each class over all videos: gt, predictions, matched, idsw, frag, mt, pt, ml, distance, idtp."""
    total = {name: dict.fromkeys(_FIELDS, 0.0) for name in CLASSES}
    guesses = videos(results)
    for name, steps in videos(gt).items():
        for category in CLASSES:
            frames = [_clear_frame(a, b, category, masks) for a, b in zip(steps, guesses[name])]
            for field, value in _clear_video(frames).items():
                total[category][field] += value
    return total


_FIELDS = ("gt", "predictions", "matched", "idsw", "frag", "mt", "pt", "ml", "distance", "idtp")


def _clear_frame(truths: list[Label], guesses: list[Label], category: str, masks: bool) -> tuple[Any, Any, Any]:
    """Ids of both sides and their distances (NaN: may not match), without what lies in ignored regions."""

    def scored(label: Label) -> bool:
        return not (label["crowd"] or label["ignored"] or label["alike"])

    regions = [label for label in truths if not scored(label)]
    truths = [label for label in truths if scored(label) and label["category"] == category]
    guesses = [label for label in guesses if scored(label) and label["category"] == category]
    distances = 1 - overlap(truths, guesses, masks, inclusive=True)
    distances[distances > 0.5] = np.nan
    if regions and guesses:
        matched = set(_assign(distances)[1])
        share = share_inside(guesses, regions, masks, inclusive=True)
        keep = [j in matched or not (share[j] > 0.5).any() for j in range(len(guesses))]
        guesses = [label for label, kept in zip(guesses, keep) if kept]
        distances = distances[:, keep]
    return [label["id"] for label in truths], [label["id"] for label in guesses], distances


def _clear_video(frames: list[tuple[Any, Any, Any]]) -> dict[str, float]:
    found = dict.fromkeys(_FIELDS, 0.0)
    partner: dict[str, str] = {}
    history: dict[str, list[bool]] = {}
    together: dict[tuple[str, str], int] = {}
    for truths, guesses, distances in frames:
        found["gt"] += len(truths)
        found["predictions"] += len(guesses)
        left = distances.copy()
        pairs = []
        taken: set[str] = set()
        for i, one in enumerate(truths):
            other = partner.get(one)
            if other in guesses and other not in taken and np.isfinite(distances[i, guesses.index(other)]):
                pairs.append((i, guesses.index(other)))
                taken.add(other)
        for i, j in pairs:
            left[i, :] = np.nan
            left[:, j] = np.nan
        for i, j in zip(*_assign(left)):
            if partner.get(truths[i], guesses[j]) != guesses[j]:
                found["idsw"] += 1
            pairs.append((i, j))
        for i, j in pairs:
            partner[truths[i]] = guesses[j]
            found["distance"] += distances[i, j]
        found["matched"] += len(pairs)
        matched = {truths[i] for i, _ in pairs}
        for one in truths:
            history.setdefault(one, []).append(one in matched)
        for i, j in np.argwhere(np.isfinite(distances)).tolist():
            together[truths[i], guesses[j]] = together.get((truths[i], guesses[j]), 0) + 1
    for seen in history.values():
        share = sum(seen) / len(seen)
        found["mt" if share >= 0.8 else "pt" if share >= 0.2 else "ml"] += 1
        inner = "".join("x" if one else "-" for one in seen).strip("-")
        found["frag"] += inner.count("x-")
    found["idtp"] = _most_together(together)
    return found


def _most_together(together: dict[tuple[str, str], int]) -> float:
    truths, guesses = sorted({pair[0] for pair in together}), sorted({pair[1] for pair in together})
    table = np.zeros((len(truths), len(guesses)))
    for (one, other), count in together.items():
        table[truths.index(one), guesses.index(other)] = count
    return float(table[linear_sum_assignment(-table)].sum()) if together else 0.0


def _assign(distances: Any) -> tuple[list[int], list[int]]:
    """motmetrics' assignment: what may not match is dearer than any choice of what may."""
    valid = np.isfinite(distances)
    if not valid.any():
        return [], []
    dear = 2 * min(distances.shape) * (np.abs(distances[valid]).max() + 1) + 1
    rows, columns = linear_sum_assignment(np.where(valid, distances, dear))
    chosen = [(i, j) for i, j in zip(rows.tolist(), columns.tolist()) if valid[i, j]]
    return [i for i, _ in chosen], [j for _, j in chosen]


def overlap(a: list[Label], b: list[Label], masks: bool, inclusive: bool) -> Any:
    """(len(a), len(b)) IoU."""
    found = np.zeros((len(a), len(b)))
    if masks:
        return coco.iou(_rles(a), _rles(b), [0] * len(b)) if a and b else found
    for i, one in enumerate(a):
        for j, other in enumerate(b):
            shared = _shared(one["box"], other["box"], inclusive)
            union = _area(one["box"], inclusive) + _area(other["box"], inclusive) - shared
            found[i, j] = shared / union if shared > 0 else 0
    return found


def share_inside(labels: list[Label], regions: list[Label], masks: bool, inclusive: bool, merged: bool = False) -> Any:
    """(len(labels), len(regions) or 1) share of each label that each region (or all together) covers."""
    if masks:
        rles = [coco.merge(_rles(regions))] if merged else _rles(regions)
        return np.asarray(coco.iou(_rles(labels), rles, [1] * len(rles))).reshape(len(labels), len(rles))
    found = np.zeros((len(labels), len(regions)))
    for i, label in enumerate(labels):
        for j, region in enumerate(regions):
            area = _area(label["box"], inclusive)
            found[i, j] = _shared(label["box"], region["box"], inclusive) / area if area > 0 else 0
    return found


def _rles(labels: list[Label]) -> list[Any]:
    return [{"size": label["rle"]["size"], "counts": label["rle"]["counts"].encode()} for label in labels]


def _area(box: list[float], inclusive: bool) -> float:
    return (box[2] - box[0] + inclusive) * (box[3] - box[1] + inclusive)


def _shared(a: list[float], b: list[float], inclusive: bool) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + inclusive
    height = min(a[3], b[3]) - max(a[1], b[1]) + inclusive
    return max(width, 0) * max(height, 0)


def without_ignored(
    gt: Frames, results: Frames, *, inclusive: bool, masks: bool, corrected: bool, category: str | None
) -> list[Video]:
    """What HOTA (one category) or TETA (None: all of them at once) is given of each video."""
    found = []
    guesses = videos(results)
    for name, steps in videos(gt).items():
        kept_truths, kept_guesses = [], []
        for truths, others in zip(steps, guesses[name]):
            regions = [label for label in truths if label["crowd"] or (corrected and label["alike"])]
            truths = [label for label in truths if label not in regions]
            others = [label | {"category": "none"} if corrected and label["alike"] else label for label in others]
            if category is not None:
                truths = [label for label in truths if label["category"] == category]
                others = [label for label in others if label["category"] == category]
            if regions and others:
                similarity = overlap(truths, others, masks, inclusive)
                allowed = similarity >= 0.5 - EPS
                rows, columns = linear_sum_assignment(np.where(allowed, -similarity, 10_000 if masks else 0))
                matched = {j for i, j in zip(rows.tolist(), columns.tolist()) if allowed[i, j]}
                share = share_inside(others, regions, masks, inclusive, merged=True)
                others = [label for j, label in enumerate(others) if j in matched or not (share[j] > 0.5 + EPS).any()]
            kept_truths.append(truths)
            kept_guesses.append(others)
        found.append(
            Video(
                name=name,
                num_frames=len(steps),
                gt=_tracks(kept_truths, inclusive, masks),
                predictions=_tracks(kept_guesses, inclusive, masks),
            )
        )
    return found


def _tracks(steps: list[list[Label]], inclusive: bool, masks: bool) -> Tracks:
    names: dict[str, int] = {}
    rows = [(t, label) for t, labels in enumerate(steps) for label in labels]
    boxes = [
        [x1, y1, x1 + (x2 - x1 + inclusive), y1 + (y2 - y1 + inclusive)]
        for _, label in rows
        for x1, y1, x2, y2 in [label["box"]]
    ]
    return make_tracks(
        [t for t, _ in rows],
        [names.setdefault(label["id"], len(names)) for _, label in rows],
        np.array(boxes, np.float64).reshape(-1, 4),
        labels=[CLASSES.index(label["category"]) if label["category"] in CLASSES else 99 for _, label in rows],
        masks=_rles([label for _, label in rows]) if masks else None,
    )
