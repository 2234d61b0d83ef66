"""TETA by plain loops, as the official tool does it: every class, every frame, every threshold. Slow, and the oracle.

Written from the rules of SysCV/tet (`metrics/teta.py`, `datasets/tao.py`, `datasets/coco.py`); also what the benchmark
of our own version is measured against.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco
from scipy.optimize import linear_sum_assignment

from trackmill.pipeline.evaluation.tracks import Tracks, Video

EPS = np.finfo("float").eps
ALPHAS = np.arange(0.0, 0.99, 0.05)
LOC = ("loc_tp", "loc_fn", "loc_fp")
CLS = ("cls_tp", "cls_fn", "cls_fp")
ASSOC = ("AssocA", "AssocRe", "AssocPr")

Counts = dict[str, Any]
"""Arrays over thresholds: `LOC` and `CLS` are sums; `ASSOC` are means over the matches of one video."""


def teta_by_loops(
    videos: list[Video], labels: Sequence[int], iou: str = "box", exhaustive: bool = False
) -> dict[int, dict[str, float]]:
    """Scores of each label over all videos, fractions."""
    return {label: scores(counts) for label, counts in counts_by_loops(videos, labels, iou, exhaustive).items()}


def counts_by_loops(
    videos: list[Video], labels: Sequence[int], iou: str = "box", exhaustive: bool = False
) -> dict[int, Counts]:
    """Counts of each label, pooled over the videos."""
    each = [video_by_loops(video, labels, iou, exhaustive) for video in videos]
    pooled = {}
    for label in labels:
        total: Counts = {name: sum(counts[label][name] for counts in each) for name in LOC + CLS}
        for name in ASSOC:
            weighted = sum(counts[label][name] * counts[label]["loc_tp"] for counts in each)
            total[name] = weighted / np.maximum(1, total["loc_tp"])
        pooled[label] = total
    return pooled


def scores(counts: Counts) -> dict[str, float]:
    """The ten scores, fractions."""
    tp, fn, fp = (counts[name] for name in LOC)
    right, missed, false = (counts[name] for name in CLS)
    loc_a = tp / np.maximum(1, tp + fn + fp)
    cls_a = np.mean(right / np.maximum(1, right + missed + false))
    values = {
        "TETA": (loc_a + counts["AssocA"] + cls_a) / 3,
        "LocA": loc_a,
        "AssocA": counts["AssocA"],
        "ClsA": cls_a,
        "LocRe": tp / np.maximum(1, tp + fn),
        "LocPr": tp / np.maximum(1, tp + fp),
        "AssocRe": counts["AssocRe"],
        "AssocPr": counts["AssocPr"],
        "ClsRe": right / np.maximum(1, right + missed),
        "ClsPr": right / np.maximum(1, right + false),
    }
    return {name: float(np.mean(value)) for name, value in values.items()}


def video_by_loops(
    video: Video, labels: Sequence[int], iou: str = "box", exhaustive: bool = False
) -> dict[int, Counts]:
    """Counts of each label in one video."""
    frames = [_frame(video, t, iou) for t in range(video.num_frames)]
    given = _assign_all(frames)
    false_classes = {label: np.zeros(10) for label in labels}
    counts = {}
    for label in labels:
        counts[label] = _count_class(frames, given, label, false_classes, exhaustive)
    for label in labels:
        counts[label]["cls_fp"] = counts[label]["cls_fp"] + false_classes[label]
    return counts


def _frame(video: Video, t: int, iou: str) -> dict[str, Any]:
    gt = video.gt.select(video.gt.frames == t)
    pred = video.predictions.select(video.predictions.frames == t)
    return {
        "gt_ids": gt.ids,
        "gt_labels": gt.labels,
        "ids": pred.ids,
        "labels": pred.labels,
        "sim": _mask_iou(gt, pred) if iou == "mask" else _box_iou(gt.boxes, pred.boxes),
    }


def _box_iou(a: Any, b: Any) -> Any:
    low, high = np.maximum(a[:, None], b[None]), np.minimum(a[:, None], b[None])
    shared = np.maximum(high[..., 2] - low[..., 0], 0) * np.maximum(high[..., 3] - low[..., 1], 0)
    area_a, area_b = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) for boxes in (a, b))
    union = area_a[:, None] + area_b[None] - shared
    shared[area_a <= EPS] = 0
    shared[:, area_b <= EPS] = 0
    shared[union <= EPS] = 0
    union[union <= EPS] = 1
    return shared / union


def _mask_iou(gt: Tracks, pred: Tracks) -> Any:
    if not len(gt) or not len(pred):
        return np.zeros((len(gt), len(pred)))
    return coco.iou(gt.masks.tolist(), pred.masks.tolist(), [0] * len(pred))


def _assign_all(frames: list[dict[str, Any]]) -> list[dict[int, int]]:
    """Per frame, which prediction each ground-truth identity is given when class plays no part."""
    close: set[int] = set()
    for frame in frames:
        close |= set(frame["ids"][(frame["sim"] >= 0.5).any(axis=0)].tolist())
    part = [_cut(frame, np.ones(len(frame["gt_ids"]), bool), close) for frame in frames]
    gt_ids, ids = _known(part, "gt_ids"), _known(part, "ids")
    if not gt_ids or not ids:
        return [{} for _ in frames]
    score = _alignment(part, gt_ids, ids)[0]
    given = []
    for frame in part:
        rows, columns = _match(frame, score, gt_ids, ids)
        kept = frame["sim"][rows, columns] >= 0.5 - EPS
        given.append(dict(zip(frame["gt_ids"][rows[kept]].tolist(), frame["ids"][columns[kept]].tolist())))
    return given


def _count_class(
    frames: list[dict[str, Any]],
    given: list[dict[int, int]],
    label: int,
    false_classes: dict[int, Any],
    exhaustive: bool,
) -> Counts:
    counts: Counts = {name: np.zeros(20) for name in LOC + ASSOC} | {name: np.zeros(10) for name in CLS}
    clusters: list[set[int]] = []
    for frame, pairs in zip(frames, given):
        own = frame["gt_labels"] == label
        near = set(frame["ids"][(frame["sim"][own] >= 0.5).any(axis=0)].tolist())
        elsewhere = {pairs[other] for other in set(pairs) - set(frame["gt_ids"][own].tolist())}
        clusters.append(near - elsewhere)
    tracks = set().union(*clusters)
    part = [_cut(frame, frame["gt_labels"] == label, tracks) for frame in frames]
    named = [set(frame["ids"][frame["labels"] == label].tolist()) for frame in frames]
    num_gt = sum(len(frame["gt_ids"]) for frame in part)
    if not tracks or not num_gt:
        counts["loc_fn"] = num_gt * np.ones(20)
        if exhaustive:
            false_classes[label] = np.ones(10) * sum(len(own | inside) for own, inside in zip(named, clusters))
        return counts

    gt_ids, ids = _known(part, "gt_ids"), _known(part, "ids")
    score, gt_count, count = _alignment(part, gt_ids, ids)
    together = [np.zeros(score.shape) for _ in ALPHAS]
    for frame, cluster, own in zip(part, clusters, named):
        if exhaustive:
            false_classes[label] = false_classes[label] + len(own - cluster)
        if not len(frame["gt_ids"]):
            continue
        rows, columns = _match(frame, score, gt_ids, ids)
        for a, alpha in enumerate(ALPHAS):
            kept = frame["sim"][rows, columns] >= alpha - EPS
            row, column = rows[kept], columns[kept]
            matched = frame["labels"][column]
            counts["loc_tp"][a] += len(row)
            counts["loc_fn"][a] += len(frame["gt_ids"]) - len(row)
            counts["loc_fp"][a] += len(cluster - set(frame["ids"][column].tolist()))
            if a >= 10:
                counts["cls_tp"][a - 10] += (matched == label).sum()
                counts["cls_fn"][a - 10] += (matched != label).sum()
                for other in matched[matched != label].tolist():
                    if other in false_classes:
                        false_classes[other][a - 10] += 1
            for i, j in zip(row, column):
                together[a][gt_ids[frame["gt_ids"][i]], ids[frame["ids"][j]]] += 1
    for a, matches in enumerate(together):
        for name, whole in zip(ASSOC, (gt_count + count - matches, gt_count, count)):
            share = matches / np.maximum(1, whole)
            counts[name][a] = (matches * share).sum() / max(1, counts["loc_tp"][a])
    return counts


def _cut(frame: dict[str, Any], own: Any, tracks: set[int]) -> dict[str, Any]:
    """The ground truth of one class, and the predictions of some tracks."""
    keep = np.array([identity in tracks for identity in frame["ids"].tolist()], bool)
    return {
        "gt_ids": frame["gt_ids"][own],
        "ids": frame["ids"][keep],
        "labels": frame["labels"][keep],
        "sim": frame["sim"][own, :][:, keep],
    }


def _known(frames: list[dict[str, Any]], name: str) -> dict[int, int]:
    """Identities, numbered in ascending order."""
    return {identity: i for i, identity in enumerate(sorted({x for frame in frames for x in frame[name].tolist()}))}


def _alignment(frames: list[dict[str, Any]], gt_ids: dict[int, int], ids: dict[int, int]) -> tuple[Any, Any, Any]:
    """Soft Jaccard index of every two identities, and in how many frames each is."""
    shared = np.zeros((len(gt_ids), len(ids)))
    gt_count, count = np.zeros((len(gt_ids), 1)), np.zeros((1, len(ids)))
    for frame in frames:
        rows = np.array([gt_ids[identity] for identity in frame["gt_ids"].tolist()], int)
        columns = np.array([ids[identity] for identity in frame["ids"].tolist()], int)
        sim = frame["sim"]
        total = sim.sum(0, keepdims=True) + sim.sum(1, keepdims=True) - sim
        share = np.zeros_like(sim)
        share[total > EPS] = sim[total > EPS] / total[total > EPS]
        shared[np.ix_(rows, columns)] += share
        gt_count[rows] += 1
        count[0, columns] += 1
    return shared / (gt_count + count - shared), gt_count, count


def _match(frame: dict[str, Any], score: Any, gt_ids: dict[int, int], ids: dict[int, int]) -> tuple[Any, Any]:
    rows = np.array([gt_ids[identity] for identity in frame["gt_ids"].tolist()], int)
    columns = np.array([ids[identity] for identity in frame["ids"].tolist()], int)
    return linear_sum_assignment(-(score[np.ix_(rows, columns)] * frame["sim"]))
