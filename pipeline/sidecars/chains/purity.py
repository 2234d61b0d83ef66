"""How pure chains are: whether the boxes of a chain are one true object, where the objects are known.

A box is an object if they overlap by an IoU of 0.5 or more, one to one in each frame (the pairs of the greatest sum).
All runs of 2, 5, 10 and 20 boxes that follow each other in a chain are looked at; a run of two is a link. A run is
*pure* if all of its boxes are one object, *mixed* if they are several, and *unmatched* if one of its boxes is no object
that is known: a false detection, or an object that the data set does not list. Those are counted apart, since nothing
says which it is.

`found` is the other side: of the steps that objects make from a stored frame to the next one, the share that a chain
makes with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.shards.visible import visible_boxes
from trackmill.schemas.boxes import Boxes, iou_matrix
from trackmill.schemas.sample import SampleRecord

LENGTHS = (2, 5, 10, 20)
"""Boxes of a chain that are looked at together."""

LEAST_IOU = 0.5
_PURE, _MIXED, _UNMATCHED = "pure", "mixed", "unmatched"
_STEPS, _FOUND = "steps of objects", "steps of objects found"

Truth = tuple[Boxes, NDArray[np.int64]]
"""Objects of a frame: boxes (G, 4) in its pixels, and identities (G,)."""


def count_purity(
    frames: NDArray[np.int32], chains: NDArray[np.int32], boxes: Boxes, truth: Sequence[Truth | None]
) -> dict[str, int]:
    """Counts of one sample, which can be summed over samples; `purity_of` makes shares of them.

    Args:
        frames: (R,) position in the sample of each box, ascending.
        chains: (R,) chain of each.
        boxes: (R, 4).
        truth: of each frame of the sample; None where nothing is known of it: its boxes are in no run.
    """
    counts: Counter[str] = Counter()
    identities = np.full(len(frames), -1, np.int64)
    known = np.array([each is not None for each in truth], bool)
    for number, objects in enumerate(truth):
        if objects is None:
            continue
        own = np.flatnonzero(frames == number)
        rows, columns = _one_to_one(boxes[own], objects[0])
        identities[own[rows]] = objects[1][columns]
    looked_at = known[frames] if len(frames) else np.zeros(0, bool)
    links: set[tuple[int, int, int]] = set()
    for chain in np.unique(chains[looked_at]).tolist():
        own = np.flatnonzero((chains == chain) & looked_at)
        found, where = identities[own], frames[own]
        links.update(
            (int(where[i]), int(where[i + 1]), int(found[i]))
            for i in range(len(own) - 1)
            if found[i] >= 0 and found[i] == found[i + 1]
        )
        for length in LENGTHS:
            for begin in range(len(own) - length + 1):
                counts[_key(length, _kind(found[begin : begin + length]))] += 1
    for before, (one, two) in enumerate(pairwise(truth)):
        if one is not None and two is not None:
            stay = np.intersect1d(one[1], two[1]).tolist()
            counts[_STEPS] += len(stay)
            counts[_FOUND] += sum((before, before + 1, identity) in links for identity in stay)
    return dict(counts)


def objects_of(sample: Sample) -> list[Truth | None] | None:
    """The objects that are stored with a sample; None where nothing is known of any frame."""
    frames = sample.record.frames
    if not sample.record.origin.annotated or all(frame.objects is None for frame in frames):
        return None
    return [_objects(sample.record, number) for number in range(len(frames))]


def purity_of(counts: Mapping[str, int]) -> dict[str, Any]:
    """Shares, from counts of `count_purity` among others; empty where there are none of them.

    Returns:
        `runs`: for each length `pure`, `mixed`, `unmatched` (counts) and `purity` (pure / (pure + mixed), None where
        neither is there); `steps`, `found` (counts) and `recall`.
    """
    if not any(map(is_purity, counts)):
        return {}
    runs = {}
    for length in LENGTHS:
        pure, mixed, unmatched = (counts.get(_key(length, kind), 0) for kind in (_PURE, _MIXED, _UNMATCHED))
        share = pure / (pure + mixed) if pure + mixed else None
        runs[str(length)] = {"pure": pure, "mixed": mixed, "unmatched": unmatched, "purity": share}
    steps, found = counts.get(_STEPS, 0), counts.get(_FOUND, 0)
    return {"runs": runs, "steps": steps, "found": found, "recall": found / steps if steps else None}


def purity_lines(purity: Mapping[str, Any]) -> list[str]:
    """The same in sentences."""
    lines = []
    for length, run in purity["runs"].items():
        known = run["pure"] + run["mixed"]
        what = "links" if length == "2" else f"chains of {length}"
        if not known and not run["unmatched"]:
            continue
        share = f"{run['purity']:.3f} of {known}" if known else "none of 0"
        lines.append(f"{what}: {share} keep one object; {run['unmatched']} more have a box that is no known object")
    if purity["steps"]:
        lines.append(f"{purity['recall']:.3f} of {purity['steps']} steps of known objects are links of a chain")
    return lines


def is_purity(name: str) -> bool:
    """Whether a count is one of `count_purity`."""
    return name in _NAMES


def _objects(record: SampleRecord, frame: int) -> Truth | None:
    objects = record.frames[frame].objects
    if objects is None:
        return None
    return visible_boxes(record, frame), np.array(objects.ids, np.int64)


def _key(length: int, kind: str) -> str:
    return f"{length} boxes {kind}"


_NAMES = {_key(length, kind) for length in LENGTHS for kind in (_PURE, _MIXED, _UNMATCHED)} | {_STEPS, _FOUND}


def _kind(identities: NDArray[np.int64]) -> str:
    if (identities < 0).any():
        return _UNMATCHED
    return _PURE if (identities == identities[0]).all() else _MIXED


def _one_to_one(boxes: Boxes, objects: Boxes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the pairs with an IoU of at least `LEAST_IOU` whose sum of IoU is greatest."""
    from scipy.optimize import linear_sum_assignment  # a third of what a miner takes to start, and few count purity

    iou = iou_matrix(boxes, np.asarray(objects, np.float32).reshape(-1, 4)).astype(np.float64)
    iou[iou < LEAST_IOU] = 0
    rows, columns = linear_sum_assignment(iou, maximize=True)
    matched = iou[rows, columns] > 0
    return rows[matched], columns[matched]
