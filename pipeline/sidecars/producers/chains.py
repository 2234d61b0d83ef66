"""Chains: proposals of a clip that follow each other from frame to frame, linked by IoU alone.

Two proposals of neighbouring stored frames are linked when each overlaps the other more than any other proposal of its
frame, by at least `min_iou`. Such a pair is one to one whatever the order, so there is nothing to tune but the
threshold. Where several overlap equally, the one with the better score counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.sidecars.columns import Column
from trackmill.pipeline.sidecars.producer import Producer, Rows
from trackmill.schemas.boxes import Boxes, iou_matrix
from trackmill.schemas.config import Settings


class ChainSettings(Settings):
    """Which proposals make a chain."""

    min_iou: float = Field(
        0.5, gt=0, le=1, description="Least IoU of a link; lower follows faster objects and makes more false links."
    )
    min_length: int = Field(2, ge=1, description="Chains of fewer frames are left out; 1 keeps single proposals.")


class ChainProducer(Producer):
    """Links the stored proposals of a clip; pixels are not looked at.

    Args:
        config: see `ChainSettings`.
    """

    name = "chains"
    version = 1
    Config = ChainSettings
    columns = (
        Column(name="chain", dtype="int32", description="Number of the chain in its sample, from 0, by first frame."),
        Column(name="proposal", dtype="int32", description="Index of the proposal among those of its frame."),
        Column(name="box", dtype="box", unit="px", description="The proposal."),
        Column(name="score", dtype="float32", description="Score of the proposal, 0..1."),
        Column(
            name="iou", dtype="float32", description="IoU with the chain's proposal a frame earlier; 0 where it begins."
        ),
    )

    def __init__(self, config: ChainSettings) -> None:
        self._config = config

    def rows(self, sample: Sample) -> Rows:
        """See `Producer.rows`; a row for each proposal that is in a chain, in the order of chains inside a frame."""
        boxes = [np.array(frame.proposals.boxes, np.float32).reshape(-1, 4) for frame in sample.record.frames]
        scores = [np.array(frame.proposals.scores, np.float32) for frame in sample.record.frames]
        chains, ious = link_boxes(boxes, self._config.min_iou)
        lengths = np.bincount(np.concatenate(chains))
        long_enough = lengths >= self._config.min_length
        number = np.cumsum(long_enough) - 1
        found: dict[str, list[Any]] = {name: [] for name in ("frame", *(column.name for column in self.columns))}
        for frame, (own, links) in enumerate(zip(chains, ious)):
            kept = np.flatnonzero(long_enough[own])
            kept = kept[np.argsort(own[kept])]
            values = (number[own[kept]], kept, boxes[frame][kept], scores[frame][kept], links[kept])
            for name, column in zip(found, (np.full(len(kept), frame), *values)):
                found[name].append(column)
        return {name: np.concatenate(parts) for name, parts in found.items()}


def link_boxes(boxes: list[Boxes], min_iou: float) -> tuple[list[NDArray[np.int64]], list[NDArray[np.float32]]]:
    """Link boxes of neighbouring frames, each of which is the other's best match.

    Args:
        boxes: (N, 4) of each frame, best score first.
        min_iou: least IoU of a link.

    Returns:
        For each frame the chain (N,) of every box, numbered as they begin, and its IoU (N,) with the one before; 0
        where a chain begins.
    """
    chains: list[NDArray[np.int64]] = []
    ious: list[NDArray[np.float32]] = []
    begun = 0
    for frame, here in enumerate(boxes):
        own = np.full(len(here), -1, np.int64)
        link = np.zeros(len(here), np.float32)
        if frame and len(here) and len(boxes[frame - 1]):
            iou = iou_matrix(boxes[frame - 1], here)  # (before, here)
            best_here, best_before = iou.argmax(axis=1), iou.argmax(axis=0)
            before = np.arange(len(iou))
            mutual = (best_before[best_here] == before) & (iou[before, best_here] >= min_iou)
            own[best_here[mutual]] = chains[frame - 1][mutual]
            link[best_here[mutual]] = iou[before, best_here][mutual]
        new = own < 0
        own[new] = begun + np.arange(new.sum())
        begun += int(new.sum())
        chains.append(own)
        ious.append(link)
    return chains, ious
