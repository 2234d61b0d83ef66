"""Counts one BDD100K video in each class for CLEAR and identity, for HOTA, and for TETA.

The three treat boxes and ignored regions differently in the Scalabel toolkit, branch scalabel-evalAPI, commit 9a48ee4
(`eval/mot.py`, `mots.py`, `hota.py`, `hotas.py`, `teta.py`, `tetas.py`), and in SysCV/tet (`datasets/bdd.py`,
`bdd_mots.py`):

| | CLEAR and identity | HOTA | TETA |
| --- | --- | --- | --- |
| box | x2 is the last pixel | x2 is the edge | x2 is the last pixel |
| ignored regions | crowds, `ignored`, look-alikes | crowds (corrected: and look-alikes) | as HOTA |
| predicted crowds, `ignored`, look-alikes | dropped | kept | kept |
| dropped inside regions | if unmatched in their class | if unmatched in their class | if unmatched at all |
| regions of masks | each by itself | all of a frame together | all of a frame together |
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.evaluation.benchmarks.bdd100k_categories import CLASSES, DISTRACTORS
from trackmill.pipeline.evaluation.benchmarks.bdd100k_regions import boxes_inside, masks_inside, unmatched_inside
from trackmill.pipeline.evaluation.box_overlaps import EPS
from trackmill.pipeline.evaluation.metrics.bdd_clear import BddClearCounts, bdd_clear, inclusive_iou, keep_outside
from trackmill.pipeline.evaluation.metrics.hota import HotaCounts, hota
from trackmill.pipeline.evaluation.metrics.teta import TetaCounts, teta
from trackmill.pipeline.evaluation.overlaps import Iou, Overlaps, find_overlaps
from trackmill.pipeline.evaluation.readers.scalabel import LabelledVideo
from trackmill.pipeline.evaluation.tracks import Tracks, Video

_TETA_ORDER = tuple(sorted(CLASSES.values()))
"""The order in which the official tool handles the classes; its class false positives depend on it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Counts:
    """Counts of one or more classes and videos; `+` pools them.

    Args:
        clear, hota, teta: empty for families that are not evaluated.
        objects: number of ground-truth objects for HOTA and TETA.
        gt_ids, predictions, ids: numbers of ground-truth identities, predicted objects and identities for HOTA.
    """

    clear: BddClearCounts
    hota: HotaCounts
    teta: TetaCounts
    objects: int = 0
    gt_ids: int = 0
    predictions: int = 0
    ids: int = 0

    @classmethod
    def none(cls) -> Counts:
        """The counts before any video."""
        return cls(clear=BddClearCounts.none(), hota=HotaCounts.none(), teta=TetaCounts.none())

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            clear=self.clear + other.clear,
            hota=self.hota + other.hota,
            teta=self.teta + other.teta,
            objects=self.objects + other.objects,
            gt_ids=self.gt_ids + other.gt_ids,
            predictions=self.predictions + other.predictions,
            ids=self.ids + other.ids,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Compared:
    """The rows of one class that CLEAR compared, in the order of `overlaps`; timelines and pictures use them."""

    gt: Tracks
    predictions: Tracks
    overlaps: Overlaps


def count_video(
    gt: LabelledVideo,
    predictions: LabelledVideo,
    *,
    iou: Iou,
    rule: Literal["published", "corrected"],
    families: Collection[str],
) -> tuple[dict[int, Counts], dict[int, Compared]]:
    """Count one video.

    Args:
        gt, predictions: with the same time steps; labels are numbers of `bdd100k_categories.CATEGORIES`.
        iou: compare boxes or masks.
        rule: `published` counts look-alikes as real objects of their class in HOTA and TETA; `corrected` ignores them
            in the ground truth, and gives predictions of such categories no class.
        families: which of `clear`, `identity`, `hota`, `teta` to count.

    Returns:
        Counts and the rows that CLEAR compared, both by number of the class.
    """
    sides = _Sides(gt=gt, predictions=predictions, num_frames=len(gt.frame_indices), iou=iou)
    clear, compared = _clear(sides) if {"clear", "identity"} & set(families) else ({}, {})
    gt_labels, pred_labels, regions = gt.tracks.labels, predictions.tracks.labels, gt.crowd
    if rule == "published":
        gt_labels, pred_labels = _look_alike(gt_labels), _look_alike(pred_labels)
    else:
        regions = regions | np.isin(gt_labels, list(DISTRACTORS))
    of_hota = _hota(sides, gt_labels, pred_labels, regions) if "hota" in families else {}
    of_teta = _teta(sides, gt_labels, pred_labels, regions) if "teta" in families else {}
    counts = {}
    for label in CLASSES.values():
        total = Counts(
            clear=clear.get(label, BddClearCounts.none()),
            hota=HotaCounts.none(),
            teta=of_teta.get(label, TetaCounts.none()),
            objects=int((~regions & (gt_labels == label)).sum()),
        )
        if label in of_hota:
            here = of_hota[label]
            total = replace(
                total,
                hota=hota(here),
                gt_ids=here.num_gt_ids,
                predictions=here.num_pred,
                ids=here.num_pred_ids,
            )
        counts[label] = total
    return counts, compared


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sides:
    """Ground truth and predictions of a video, and how they are compared."""

    gt: LabelledVideo
    predictions: LabelledVideo
    num_frames: int
    iou: Iou

    def overlaps(self, inclusive: bool) -> Overlaps:
        """Overlaps of all rows; `inclusive` boxes extend one pixel beyond x2, y2."""
        gt, predictions = self.gt.tracks, self.predictions.tracks
        if inclusive and self.iou == "box":
            gt, predictions = _grown(gt), _grown(predictions)
        return find_overlaps(gt, predictions, self.num_frames, self.iou)

    def inside(self, regions: NDArray[np.bool_], inclusive: bool, merged: bool, margin: float) -> NDArray[np.bool_]:
        """(P,) predictions that are inside one of the ground-truth rows that `regions` (G,) marks."""
        predictions, ignored = self.predictions.tracks, self.gt.tracks.select(regions)
        if self.iou == "mask":
            return masks_inside(predictions, ignored, merged=merged, margin=margin)
        if inclusive:
            predictions, ignored = _grown(predictions), _grown(ignored)
        areas = (predictions.boxes[:, 2:] - predictions.boxes[:, :2]).prod(axis=1)
        return boxes_inside(predictions, areas, ignored, self.num_frames, margin)


def _clear(sides: _Sides) -> tuple[dict[int, BddClearCounts], dict[int, Compared]]:
    gt, predictions = sides.gt, sides.predictions
    overlaps = sides.overlaps(inclusive=True)
    if sides.iou == "box":
        boxes = gt.tracks.boxes[overlaps.pair_gt], predictions.tracks.boxes[overlaps.pair_pred]
        overlaps = replace(overlaps, pair_iou=inclusive_iou(*boxes))
    regions, unscored = _unscored(gt), _unscored(predictions)
    inside = sides.inside(regions, inclusive=True, merged=False, margin=0.0)
    counts, compared = {}, {}
    for label in CLASSES.values():
        of_gt = ~regions & (gt.tracks.labels == label)
        of_pred = ~unscored & (predictions.tracks.labels == label)
        if (inside & of_pred).any():
            of_pred[of_pred] = keep_outside(overlaps.select(of_gt, of_pred), inside[of_pred])
        if not of_gt.any() and not of_pred.any():
            continue
        here = overlaps.select(of_gt, of_pred)
        counts[label] = bdd_clear(here)
        compared[label] = Compared(
            gt=gt.tracks.select(of_gt), predictions=predictions.tracks.select(of_pred), overlaps=here
        )
    return counts, compared


def _hota(
    sides: _Sides, gt_labels: NDArray[np.int64], pred_labels: NDArray[np.int64], regions: NDArray[np.bool_]
) -> dict[int, Overlaps]:
    """The overlaps that HOTA scores in each class."""
    overlaps = sides.overlaps(inclusive=False)
    inside = sides.inside(regions, inclusive=False, merged=True, margin=EPS)
    compared = {}
    for label in CLASSES.values():
        of_gt, of_pred = ~regions & (gt_labels == label), pred_labels == label
        if (inside & of_pred).any():
            of_pred[of_pred] = ~unmatched_inside(overlaps.select(of_gt, of_pred), inside[of_pred], sides.iou)
        if of_gt.any() or of_pred.any():
            compared[label] = overlaps.of_class(of_gt, of_pred)
    return compared


def _teta(
    sides: _Sides, gt_labels: NDArray[np.int64], pred_labels: NDArray[np.int64], regions: NDArray[np.bool_]
) -> dict[int, TetaCounts]:
    everything = np.ones(len(pred_labels), bool)
    overlaps = sides.overlaps(inclusive=True).select(~regions, everything)
    inside = sides.inside(regions, inclusive=True, merged=True, margin=EPS)
    keep = ~unmatched_inside(overlaps, inside, sides.iou)
    video = Video(
        name=sides.gt.name,
        num_frames=sides.num_frames,
        gt=replace(sides.gt.tracks, labels=gt_labels).select(~regions),
        predictions=replace(sides.predictions.tracks, labels=pred_labels).select(keep),
    )
    return teta(video, overlaps.select(np.ones(overlaps.num_gt, bool), keep), _TETA_ORDER, exhaustive=True)


def _unscored(video: LabelledVideo) -> NDArray[np.bool_]:
    """(N,) labels that CLEAR does not treat as objects."""
    return video.crowd | video.ignored | np.isin(video.tracks.labels, list(DISTRACTORS))


def _look_alike(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    converted = labels.copy()
    for number, label in DISTRACTORS.items():
        converted[labels == number] = label
    return converted


def _grown(tracks: Tracks) -> Tracks:
    """Boxes with x2, y2 moved from the last pixel to the edge; computed from the size, as in the official tools."""
    low = tracks.boxes[:, :2]
    return replace(tracks, boxes=np.concatenate([low, low + (tracks.boxes[:, 2:] - low + 1)], axis=1))
