"""Decoded masks on their way to records: filter, remove duplicates, remove small regions, as segment-anything does.

The order of the masks decides between equal scores. Candidates are ordered by prompt and then by mask until duplicates
are removed; after that they are ordered by descending score. Duplicates are removed by torchvision's `batched_nms`, as
in the reference.
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

from trackmill.models.sam.device_scan import measure_masks
from trackmill.models.sam.regions import clean_small_regions, intervals_box
from trackmill.models.sam.scan import Intervals, Place, Thresholds, scan
from trackmill.models.sam.segmenter import Decoded, ResizeChain

Crop = tuple[int, int, int, int]
"""x0, y0, x1, y1 of a crop in its picture, in pixels; x1 and y1 are exclusive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """N masks that passed `filter_masks`.

    Args:
        boxes: (N, 4) int64 inclusive (x0, y0, x1, y1) in the picture.
        iou: (N,) float32 predicted IoU.
        stability: (N,) float32.
        prompts: (N, 2) float64 points or (N, 4) boxes that the masks were decoded from, in pixels of the picture.
        crops: (N, 4) int64 crops that the masks were decoded in; see `Crop`.
        numbers: (N,) int64, a number of its own for each mask of a picture; set once all crops are decoded.
        intervals: runs of each mask in the picture. Empty while the logits are on a GPU; `rasterise` fills it.
        logits: (N, rows, columns) float32 on the GPU until `rasterise`; None otherwise.
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


def concatenate(parts: Sequence[Candidates]) -> Candidates:
    """The candidates of all parts (at least one), in the order of the parts."""
    arrays = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(Candidates)
        if field.name not in ("intervals", "logits")
    }
    intervals = [each for part in parts for each in part.intervals]
    logits = [part.logits for part in parts if part.logits is not None]
    return Candidates(**arrays, intervals=intervals, logits=torch.cat(logits) if logits else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskFilter:
    """Thresholds of `filter_masks`; `FastMaskGenerator` explains them. A threshold of 0 or below keeps every mask."""

    thresholds: Thresholds
    stability: float
    crop_edges: bool = True


def filter_masks(
    decoded: Decoded,
    prompts: NDArray[np.float64],
    chain: ResizeChain,
    crop: Crop,
    size: tuple[int, int],
    mask_filter: MaskFilter,
) -> Candidates:
    """Scan the decoded masks, and keep those that are stable and that no edge of the crop cuts.

    Args:
        decoded: masks of the prompts; its logits hold those whose predicted IoU is above the threshold.
        prompts: (N, 2) points or (N, 4) boxes in pixels of the crop.
        chain: how the logits become masks of the crop.
        crop: where the crop lies in the picture.
        size: (H, W) of the picture.
        mask_filter: the thresholds.
    """
    masks_per_prompt = decoded.iou.shape[1]
    kept = decoded.kept.cpu().numpy()
    iou = decoded.iou.flatten()[decoded.kept].cpu().numpy()
    place = Place(crop[0], crop[1], *size)
    intervals: list[Intervals] = []
    logits = None
    if decoded.logits.device.type == "cpu":
        scanned = scan(decoded.logits.numpy(), chain, mask_filter.thresholds, place, masks_per_prompt)
        stability, boxes, intervals = scanned.stability, scanned.boxes, scanned.intervals
    else:
        stability, boxes = measure_masks(decoded.logits, chain, mask_filter.thresholds)
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
    if mask_filter.stability > 0:
        found = found.take(found.stability >= np.float32(mask_filter.stability))  # the nan of an empty mask is not
    if mask_filter.crop_edges and len(found):
        inside = torch.from_numpy(found.boxes - np.array([crop[0], crop[1]] * 2))
        near = is_box_near_crop_edge(inside, list(crop), [0, 0, size[1], size[0]]).numpy()
        found = found.take(~near)
    return found


def rasterise(
    candidates: Candidates,
    chain: ResizeChain,
    crop: Crop,
    size: tuple[int, int],
    mask_filter: MaskFilter,
    channels: int = 3,
) -> Candidates:
    """Copy logits that are on a GPU to the CPU and turn them into runs. Candidates without logits return unchanged."""
    if candidates.logits is None:
        return candidates
    place = Place(crop[0], crop[1], *size)
    scanned = scan(candidates.logits.cpu().numpy(), chain, mask_filter.thresholds, place, channels)
    boxes = scanned.boxes + np.array([crop[0], crop[1]] * 2)
    return replace(candidates, boxes=boxes, intervals=scanned.intervals, logits=None)


def no_candidates(prompt_size: int) -> Candidates:
    """Zero candidates, of prompts with `prompt_size` numbers: 2 for points, 4 for boxes."""
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
    """Keep the candidate of the highest score among those whose boxes have an IoU above `iou`; best first."""
    return candidates.take(_unique(candidates.boxes, scores, iou))


def _unique(boxes: NDArray[np.int64], scores: NDArray[np.float32], iou: float) -> NDArray[np.int64]:
    kept: NDArray[np.int64] = batched_nms(
        torch.from_numpy(boxes).float(), torch.from_numpy(scores), torch.zeros(len(boxes)), iou_threshold=iou
    ).numpy()
    return kept


def crop_scores(candidates: Candidates) -> NDArray[np.float32]:
    """(N,) 1 / area of each mask's crop: duplicate removal by this score prefers masks of smaller crops."""
    sides = candidates.crops[:, 2:] - candidates.crops[:, :2]
    return (np.float32(1) / (sides[:, 0] * sides[:, 1]).astype(np.float32)).astype(np.float32)


def postprocess_small_regions(candidates: Candidates, size: tuple[int, int], min_area: float, iou: float) -> Candidates:
    """Fill small holes, remove small islands, then remove masks that became duplicates; unchanged masks come first.

    As in the reference, an unchanged mask keeps its box, and a changed one gets the box of its new pixels.
    """
    if not len(candidates):
        return candidates
    cleaned = [clean_small_regions(each, *size, min_area) for each in candidates.intervals]
    changed = np.array([was_changed for _, was_changed in cleaned])
    boxes = np.array([intervals_box(each, size[0]) for each, _ in cleaned], np.int64)
    candidates = replace(
        candidates,
        intervals=[each for each, _ in cleaned],
        boxes=np.where(changed[:, None], boxes, candidates.boxes),
    )
    return candidates.take(_unique(boxes, (~changed).astype(np.float32), iou))
