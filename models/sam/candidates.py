"""Masks on their way from the decoder to the records: gates, duplicates, small regions, in segment-anything's order.

The order matters wherever scores tie: candidates stay prompt by prompt and mask by mask until duplicates are removed,
and leave that by descending score. All duplicate removal is torchvision's `batched_nms`, as in the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.utils.amg import is_box_near_crop_edge
from torch import Tensor
from torchvision.ops import batched_nms

from trackmill.models.sam.device_scan import measure
from trackmill.models.sam.regions import intervals_box, mend
from trackmill.models.sam.scan import Intervals, Place, Thresholds, scan
from trackmill.models.sam.segmenter import Decoded, ResizeChain

Crop = tuple[int, int, int, int]
"""x0, y0, x1, y1 of a crop in its picture, pixels, exclusive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """N masks that passed the gates.

    Args:
        boxes: (N, 4) int64 inclusive (x0, y0, x1, y1) in the picture.
        iou: (N,) float32 predicted IoU.
        stability: (N,) float32.
        prompts: (N, 2) float64 points or (N, 4) boxes in pixels of the picture that they came from.
        crops: (N, 4) int64.
        numbers: (N,) int64, by which a picture's masks are told apart once all its crops are decoded.
        intervals: runs of each mask in the picture; empty until `trace` when the logits are still on a GPU.
        logits: (N, rows, columns) float32 on the GPU until then; None otherwise.
    """

    boxes: NDArray[np.int64]
    iou: NDArray[np.float32]
    stability: NDArray[np.float32]
    prompts: NDArray[np.float64]
    crops: NDArray[np.int64]
    numbers: NDArray[np.int64]
    intervals: list[Intervals]
    logits: Tensor | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Candidates:
        """The candidates at `index`, in its order."""
        positions = np.arange(len(self))[index]
        arrays = {
            field.name: getattr(self, field.name)[positions]
            for field in fields(self)
            if field.name not in ("intervals", "logits")
        }
        intervals = [self.intervals[i] for i in positions] if self.intervals else []
        logits = None if self.logits is None else self.logits[torch.from_numpy(positions).to(self.logits.device)]
        return Candidates(**arrays, intervals=intervals, logits=logits)


def join(parts: Sequence[Candidates]) -> Candidates:
    """All candidates, one part after the other.

    Args:
        parts: at least one.
    """
    arrays = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(Candidates)
        if field.name not in ("intervals", "logits")
    }
    intervals = [each for part in parts for each in part.intervals]
    logits = [part.logits for part in parts if part.logits is not None]
    return Candidates(**arrays, intervals=intervals, logits=torch.cat(logits) if logits else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """What a mask must pass; see `FastMaskGenerator` for each. A threshold of 0 (or below) lets everything through."""

    thresholds: Thresholds
    stability: float
    crop_edges: bool = True


def gate(
    decoded: Decoded,
    prompts: NDArray[np.float64],
    chain: ResizeChain,
    crop: Crop,
    size: tuple[int, int],
    gates: Gates,
) -> Candidates:
    """Scan drawn masks and keep the stable ones that no crop cuts.

    Args:
        decoded: masks of the prompts, of which those above the predicted IoU are drawn.
        prompts: (N, 2) or (N, 4) in pixels of the crop.
        chain: how their logits become masks of the crop.
        crop: where it lies.
        size: (H, W) of the picture.
        gates: see `Gates`.
    """
    masks_per_prompt = decoded.iou.shape[1]
    kept = decoded.kept.cpu().numpy()
    iou = decoded.iou.flatten()[decoded.kept].cpu().numpy()
    place = Place(crop[0], crop[1], *size)
    intervals: list[Intervals] = []
    logits = None
    if decoded.logits.device.type == "cpu":
        scanned = scan(decoded.logits.numpy(), chain, gates.thresholds, place, masks_per_prompt)
        stability, boxes, intervals = scanned.stability, scanned.boxes, scanned.intervals
    else:
        stability, boxes = measure(decoded.logits, chain, gates.thresholds)
        logits = decoded.logits
    found = Candidates(
        boxes=boxes + np.array([crop[0], crop[1]] * 2),
        iou=iou,
        stability=stability,
        prompts=prompts[kept // masks_per_prompt] + np.array([crop[0], crop[1]] * (prompts.shape[1] // 2)),
        crops=np.tile(np.array(crop), (len(kept), 1)),
        numbers=np.zeros(len(kept), np.int64),
        intervals=intervals,
        logits=logits,
    )
    if gates.stability > 0:
        found = found.take(found.stability >= np.float32(gates.stability))  # nan, an empty mask, is not
    if gates.crop_edges and len(found):
        inside = torch.from_numpy(found.boxes - np.array([crop[0], crop[1]] * 2))
        near = is_box_near_crop_edge(inside, list(crop), [0, 0, size[1], size[0]]).numpy()
        found = found.take(~near)
    return found


def trace(
    candidates: Candidates, chain: ResizeChain, crop: Crop, size: tuple[int, int], gates: Gates, channels: int = 3
) -> Candidates:
    """Fetch what is left on a GPU and scan it here, where the runs are made; others pass unchanged."""
    if candidates.logits is None:
        return candidates
    place = Place(crop[0], crop[1], *size)
    scanned = scan(candidates.logits.cpu().numpy(), chain, gates.thresholds, place, channels)
    boxes = scanned.boxes + np.array([crop[0], crop[1]] * 2)
    return replace(candidates, boxes=boxes, intervals=scanned.intervals, logits=None)


def no_candidates(prompt_size: int) -> Candidates:
    """None, of prompts of 2 (points) or 4 (boxes) numbers."""
    nothing = np.zeros(0, np.int64)
    return Candidates(
        boxes=np.zeros((0, 4), np.int64),
        iou=np.zeros(0, np.float32),
        stability=np.zeros(0, np.float32),
        prompts=np.zeros((0, prompt_size)),
        crops=np.zeros((0, 4), np.int64),
        numbers=nothing,
        intervals=[],
    )


def without_duplicates(candidates: Candidates, scores: NDArray[np.float32], iou: float) -> Candidates:
    """Of candidates whose boxes overlap by more than `iou` the one of the highest score; best first."""
    return candidates.take(_unique(candidates.boxes, scores, iou))


def _unique(boxes: NDArray[np.int64], scores: NDArray[np.float32], iou: float) -> NDArray[np.int64]:
    kept: NDArray[np.int64] = batched_nms(
        torch.from_numpy(boxes).float(), torch.from_numpy(scores), torch.zeros(len(boxes)), iou_threshold=iou
    ).numpy()
    return kept


def crop_scores(candidates: Candidates) -> NDArray[np.float32]:
    """(N,) scores by which masks of smaller crops are preferred."""
    sides = candidates.crops[:, 2:] - candidates.crops[:, :2]
    return (np.float32(1) / (sides[:, 0] * sides[:, 1]).astype(np.float32)).astype(np.float32)


def without_small_regions(candidates: Candidates, size: tuple[int, int], min_area: float, iou: float) -> Candidates:
    """Mend holes and islands, then remove masks that have become duplicates; those that needed no mending stay first.

    As in the reference, an unchanged mask keeps the box it has, a mended one gets the box of its new pixels.
    """
    if not len(candidates):
        return candidates
    mended = [mend(each, *size, min_area) for each in candidates.intervals]
    changed = np.array([was_changed for _, was_changed in mended])
    boxes = np.array([intervals_box(each, size[0]) for each, _ in mended], np.int64)
    candidates = replace(
        candidates,
        intervals=[each for each, _ in mended],
        boxes=np.where(changed[:, None], boxes, candidates.boxes),
    )
    return candidates.take(_unique(boxes, (~changed).astype(np.float32), iou))
