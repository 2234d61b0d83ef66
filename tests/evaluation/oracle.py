"""HOTA, CLEAR and Identity by TrackEval 1.3.0, in process: what our numbers have to equal."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import trackeval
from trackeval.datasets._base_dataset import _BaseDataset

from trackmill.pipeline.evaluation.tracks import Video

Data = dict[str, Any]
"""One sequence, as TrackEval's metrics want it."""

Result = dict[str, Any]
"""TrackEval's fields of all three metrics, as fractions; HOTA's are arrays over the 19 thresholds."""

BENCHMARKS = {
    "mot15": "MOT15",
    "mot17": "MOT17",
    "mot20": "MOT20",
    "dancetrack": "DanceTrack",
    "sportsmot": "SportsMOT",
}
"""TrackEval's names of ours."""

_QUIET = {"PRINT_CONFIG": False}


def metrics() -> dict[str, Any]:
    """The three metrics; CLEAR and Identity at IoU 0.5."""
    return {
        "hota": trackeval.metrics.HOTA(),
        "clear": trackeval.metrics.CLEAR(dict(_QUIET)),
        "identity": trackeval.metrics.Identity(dict(_QUIET)),
    }


def similarity_data(video: Video, iou: str = "box") -> Data:
    """A video in TrackEval's form, compared by TrackEval's own functions."""
    gt_ids, gt = _by_frame(video.gt.ids, video.gt.frames, video.num_frames)
    pred_ids, pred = _by_frame(video.predictions.ids, video.predictions.frames, video.num_frames)
    similarity = []
    for truth, guesses in zip(gt, pred):
        if iou == "box":
            a, b = video.gt.boxes[truth], video.predictions.boxes[guesses]
            similarity.append(_BaseDataset._calculate_box_ious(a, b, box_format="x0y0x1y1"))
        else:
            a, b = video.gt.masks[truth].tolist(), video.predictions.masks[guesses].tolist()
            similarity.append(_BaseDataset._calculate_mask_ious(a, b, is_encoded=True))
    return {
        "num_timesteps": video.num_frames,
        "num_gt_ids": len(np.unique(video.gt.ids)),
        "num_tracker_ids": len(np.unique(video.predictions.ids)),
        "num_gt_dets": len(video.gt),
        "num_tracker_dets": len(video.predictions),
        "gt_ids": gt_ids,
        "tracker_ids": pred_ids,
        "similarity_scores": similarity,
    }


def evaluate(data: Iterable[Data]) -> tuple[list[Result], Result]:
    """Each sequence, and all together."""
    tools = metrics()
    each = [{name: tool.eval_sequence(sequence) for name, tool in tools.items()} for sequence in data]
    together = {
        name: tool.combine_sequences({str(i): result[name] for i, result in enumerate(each)})
        for name, tool in tools.items()
    }
    return [_merged(result) for result in each], _merged(together)


def mot_dataset(
    benchmark: str, gt: Path, results: Path, names: Iterable[str], preprocess: bool = True
) -> trackeval.datasets.MotChallenge2DBox:
    """TrackEval's reader of `gt/SEQUENCE/...` and `results/SEQUENCE.txt`; lengths come from seqinfo.ini."""
    return trackeval.datasets.MotChallenge2DBox(
        {
            "GT_FOLDER": str(gt),
            "TRACKERS_FOLDER": str(results.parent),
            "TRACKERS_TO_EVAL": [results.name],
            "TRACKER_SUB_FOLDER": "",
            "BENCHMARK": BENCHMARKS[benchmark],
            "DO_PREPROC": preprocess,
            "SEQ_INFO": dict.fromkeys(names),
            "SKIP_SPLIT_FOL": True,
            **_QUIET,
        }
    )


def evaluate_mot(
    benchmark: str, gt: Path, results: Path, names: Iterable[str], preprocess: bool = True
) -> tuple[list[Result], Result]:
    """From text files: each sequence, and all together."""
    names = list(names)
    dataset = mot_dataset(benchmark, gt, results, names, preprocess)
    return evaluate(
        dataset.get_preprocessed_seq_data(dataset.get_raw_seq_data(results.name, name), "pedestrian") for name in names
    )


def _by_frame(ids: Any, frames: Any, num_frames: int) -> tuple[list[Any], list[slice]]:
    """Ids counted from 0 without gaps, and rows, of each frame."""
    relabelled = np.unique(ids, return_inverse=True)[1]
    starts = np.searchsorted(frames, np.arange(num_frames + 1))
    rows = [slice(begin, end) for begin, end in pairwise(starts)]
    return [relabelled[part] for part in rows], rows


def _merged(result: dict[str, dict[str, Any]]) -> Result:
    return {field: value for fields in result.values() for field, value in fields.items()}
