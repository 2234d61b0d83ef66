"""Who is where in a stored clip: boxes with identities out of masklets, out of chains, or out of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.loader.clips.settings import ClipSources
from trackmill.pipeline.loader.contract import StoredSample
from trackmill.pipeline.loader.sidecar_rows import CHAINS, rows_with
from trackmill.schemas.boxes import Boxes, cut_at_frame, empty_boxes, iou_matrix

SAME_IOU = 0.5
"""A chain that overlaps a masklet so much or more is the same object."""

_Frame = tuple[Boxes, NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Identities:
    """The objects of a clip's F frames.

    Args:
        boxes: F arrays (G_f, 4) float32 `xyxy` in stored pixels; they may leave the frame.
        ids: F arrays (G_f,) int64 from 0; the same object has the same id in all frames, and once in each at most. -1:
            an object of which it is not known who it is; it is nobody's positive, and must be nobody's negative.
        told: (F,) bool, whether anything says who is in the frame, if only that nobody is.
        owners: by id, where it comes from: "masklet" or "chain", and its number there.
    """

    boxes: tuple[Boxes, ...]
    ids: tuple[NDArray[np.int64], ...]
    told: NDArray[np.bool_]
    owners: tuple[tuple[str, int], ...]

    def known(self) -> NDArray[np.int64]:
        """Sorted places of the frames in which somebody is identified."""
        return np.array([frame for frame, ids in enumerate(self.ids) if (ids >= 0).any()], np.int64)


def identities_of(sample: StoredSample, sources: ClipSources) -> Identities:
    """The objects of all frames: masklets in the frames that have some, chains in the others.

    A chain that also runs through frames with masklets tells who it is there: where it overlaps one masklet, it goes on
    under that identity; where it overlaps several, it went over from one object to another, and is nobody. Chains that
    overlap none are objects of their own.

    Raises:
        SidecarError: the sidecar holds no chains; says what it holds.
        NoSidecar, OtherShards, BadShard: see `StoredSample`.
    """
    frames = range(sample.num_frames)
    annotated = [sample.objects(frame) if sources.masklets else None for frame in frames]
    masklets = [_some(each) for each in annotated]
    chains = [_chains(sample, sources.chains, frame) if sources.chains else None for frame in frames]
    owners = _owners(sample, masklets, chains)
    numbers: dict[tuple[str, int], int] = {}
    boxes, ids = [], []
    for masklet, chain in zip(masklets, chains):
        if masklet is not None:
            own_boxes, names = masklet[0], [("masklet", each) for each in masklet[1].tolist()]
        elif chain is not None:
            own_boxes, names = chain[0], [owners.get(each, ("chain", each)) for each in chain[1].tolist()]
        else:
            own_boxes, names = empty_boxes(), []
        own_ids = np.array([_number(name, numbers) for name in names], np.int64)
        boxes.append(own_boxes)
        ids.append(_once(own_ids))
    told = np.array([bool(sources.chains) or each is not None for each in annotated], bool)
    return Identities(boxes=tuple(boxes), ids=tuple(ids), told=told, owners=tuple(numbers))


_NOBODY = ("nobody", 0)


def _number(name: tuple[str, int], numbers: dict[tuple[str, int], int]) -> int:
    # Numbers below 0, as sidecars of somebody's own may give boxes that are in no chain, are nobody's either.
    return -1 if name == _NOBODY or name[1] < 0 else numbers.setdefault(name, len(numbers))


def _once(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same ids, -1 from the second time on that one comes: of two chains of one masklet only one can be it."""
    first = np.zeros(len(ids), bool)
    first[np.unique(ids, return_index=True)[1]] = True
    return np.where(first, ids, -1)


def _owners(
    sample: StoredSample, masklets: Sequence[_Frame | None], chains: Sequence[_Frame | None]
) -> dict[int, tuple[str, int]]:
    """Whose masklet each chain is that meets one, by the chain's number."""
    met: dict[int, set[int]] = {}
    for masklet, chain in zip(masklets, chains):
        if masklet is None or chain is None or not len(chain[0]):
            continue
        visible = cut_at_frame(masklet[0], sample.height, sample.width)
        overlaps = iou_matrix(chain[0], visible)  # (chains, masklets)
        best = overlaps.argmax(axis=1)
        for row in np.flatnonzero((overlaps.max(axis=1) >= SAME_IOU) & (chain[1] >= 0)).tolist():
            met.setdefault(int(chain[1][row]), set()).add(int(masklet[1][best[row]]))
    return {chain: ("masklet", min(own)) if len(own) == 1 else _NOBODY for chain, own in met.items()}


def _some(masklets: _Frame | None) -> _Frame | None:
    """None for a frame without one: it says nothing where there are chains, as not every object is annotated."""
    return None if masklets is None or not len(masklets[0]) else masklets


def _chains(sample: StoredSample, name: str, frame: int) -> _Frame:
    rows = rows_with(sample, name, frame, CHAINS)
    boxes, chains = rows["box"], rows["chain"]
    if "score" in rows:  # the best first, see `_once`
        order = np.argsort(-rows["score"], kind="stable")
        boxes, chains = boxes[order], chains[order]
    return boxes, chains.astype(np.int64)
