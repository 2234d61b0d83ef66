"""TAO's own rules: which predictions of a class count in a video, and how rows form tracks.

As in TrackEval 1.3.0 (`datasets/tao.py`; Dave et al., "TAO: A Large-Scale Benchmark for Tracking Any Object", ECCV
2020). They apply to HOTA, CLEAR, Identity and Track mAP, but not to TETA.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.evaluation.assignment import best_pairs
from trackmill.pipeline.evaluation.box_overlaps import EPS
from trackmill.pipeline.evaluation.metrics.track_overlaps import TrackTable, track_table
from trackmill.pipeline.evaluation.overlaps import Iou, Overlaps
from trackmill.pipeline.evaluation.tracks import Tracks, Video


def where_annotated(video: Video, overlaps: Overlaps) -> tuple[Video, Overlaps]:
    """Drop predictions in frames without ground truth, which were not annotated."""
    annotated = np.zeros(video.num_frames, bool)
    annotated[video.gt.frames] = True
    keep = annotated[video.predictions.frames]
    if keep.all():
        return video, overlaps
    kept = replace(video, predictions=video.predictions.select(keep))
    return kept, overlaps.select(np.ones(len(video.gt), bool), keep)


def counted_predictions(
    overlaps: Overlaps,
    of_class: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    *,
    is_negative: bool,
    is_exhaustive: bool,
) -> NDArray[np.bool_]:
    """(P,) the predictions of one class that count.

    Predictions in a frame without ground truth of the class count only if the class is known to be absent from the
    video. Unmatched predictions of a class that is not annotated completely do not count, because they may be right.

    Args:
        overlaps: of all objects, G x P.
        of_class, predicted: (G,) and (P,) ground truth and predictions of the class.
        is_negative: whether the video lists the class as absent.
        is_exhaustive: whether every object of the class is annotated.
    """
    keep = predicted
    if not is_negative:
        annotated = np.zeros(overlaps.num_frames, bool)
        annotated[overlaps.gt_frames[of_class]] = True
        keep = keep & annotated[overlaps.pred_frames]
    if not is_exhaustive:
        compared = overlaps.select(of_class, keep)
        chosen = best_pairs(compared, np.where(compared.pair_iou >= 0.5 - EPS, compared.pair_iou, 0))
        matched = np.flatnonzero(keep)[compared.pair_pred[chosen]]
        keep = np.zeros(len(keep), bool)
        keep[matched] = True
    return keep


def tracks_of_file(tracks: Tracks, places: NDArray[np.int64], iou: Iou) -> TrackTable:
    """The tracks in the order of their first rows in the file, each with the class of that row.

    Args:
        tracks: N rows.
        places: (N,) place of each row in the file.
        iou: whether areas are those of boxes or of masks.
    """
    table = track_table(tracks, iou)
    by_place = np.argsort(places)
    ids, first = np.unique(tracks.ids[by_place], return_index=True)
    labels = tracks.labels[by_place][first]
    at = np.searchsorted(ids, table.ids)
    order = np.argsort(first[at])
    columns = {name: getattr(table, name)[order] for name in TrackTable.__dataclass_fields__ if name != "labels"}
    return TrackTable(**columns, labels=labels[at][order])
