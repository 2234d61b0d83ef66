"""The rule of a link, against plain loops and cases by hand."""

from __future__ import annotations

import numpy as np
import pytest

from trackmill.pipeline.sidecars.chains.link import LinkRule, link_boxes, strict_matches
from trackmill.pipeline.sidecars.chains.overlap import box_overlap, mask_overlap
from trackmill.schemas.boxes import Boxes, iou_matrix
from trackmill.schemas.masks import crop_mask, paste_mask


def plain_chains(frames: list[Boxes], cuts: list[bool], rule: LinkRule) -> list[list[int]]:
    """The same rule as loops over boxes, frame by frame and pair by pair."""
    chains: list[list[int]] = []
    followed: set[tuple[int, int]] = set()
    begun = 0
    for here, boxes in enumerate(frames):
        own = [-1] * len(boxes)
        for gap in range(rule.bridge + 1):
            before = here - 1 - gap
            if before < 0 or any(cuts[before:here]):
                break
            iou = [[float(iou_matrix(a[None], b[None])[0, 0]) for b in boxes] for a in frames[before]]
            for i, row in enumerate(iou):
                for j, value in enumerate(row):
                    rivals = [row[k] for k in range(len(row)) if k != j] + [
                        iou[k][j] for k in range(len(iou)) if k != i
                    ]
                    best = max(rivals, default=0.0)
                    if value < rule.min_iou or np.float32(value) - np.float32(best) < np.float32(rule.margin):
                        continue
                    if value > best and own[j] < 0 and (before, i) not in followed:
                        own[j] = chains[before][i]
                        followed.add((before, i))
        for j, chain in enumerate(own):
            if chain < 0:
                own[j], begun = begun, begun + 1
        chains.append(own)
    return chains


@pytest.mark.parametrize("bridge", [0, 1, 2])
@pytest.mark.parametrize("margin", [0.0, 0.2])
def test_as_plain_loops(bridge: int, margin: float) -> None:
    rng = np.random.default_rng(10 * bridge + int(margin > 0))
    rule = LinkRule(min_iou=0.3, margin=margin, bridge=bridge)
    links = 0
    for _ in range(8):
        corners = rng.uniform(0, 60, (6, 2))
        frames: list[Boxes] = []
        for _ in range(8):
            corners = corners + rng.normal(0, 2, corners.shape)
            seen = rng.permutation(6)[: rng.integers(0, 7)]
            frames.append(np.concatenate([corners, corners + 20], axis=1)[seen].astype(np.float32))
        cuts = rng.random(7) < 0.15
        found = link_boxes([len(each) for each in frames], box_overlap(frames), cuts, rule)
        assert [own.tolist() for own in found.chains] == plain_chains(frames, cuts.tolist(), rule)
        links += sum(int((iou > 0).sum()) for iou in found.ious)
        assert all((iou[iou > 0] >= 0.3).all() for iou in found.ious)
    assert links > 30, "there was something to link"


@pytest.mark.parametrize(
    ("iou", "margin", "pairs"),
    [
        ([[0.9, 0.1], [0.2, 0.8]], 0.2, [(0, 0), (1, 1)]),  # two objects apart
        ([[0.9, 0.8], [0.1, 0.1]], 0.2, []),  # one box before, two after it: which one it became is not clear
        ([[0.9], [0.8]], 0.2, []),  # two that became one
        ([[0.9, 0.8], [0.1, 0.1]], 0.0, [(0, 0)]),  # without a margin the best one counts
        ([[0.6, 0.7], [0.7, 0.9]], 0.0, [(1, 1)]),  # best of one row, but not the other's best: not mutual
        ([[0.7, 0.7]], 0.0, [(0, 0)]),  # equal: the first one
        ([[0.7, 0.7]], 0.01, []),  # equal: none, if any margin is asked for
        ([[0.4]], 0.0, []),  # below the least IoU
    ],
)
def test_strict_matches(iou: list[list[float]], margin: float, pairs: list[tuple[int, int]]) -> None:
    rows, columns = strict_matches(np.array(iou, np.float32), 0.5, margin)
    assert list(zip(rows.tolist(), columns.tolist())) == pairs


def test_masks_overlap_as_whole_frames_do() -> None:
    rng = np.random.default_rng(0)
    height, width = 30, 40
    frames = []
    for _ in range(2):
        masks = [np.zeros((height, width), bool) for _ in range(4)]
        for mask in masks:
            y, x = rng.integers(0, 18), rng.integers(0, 26)
            mask[y : y + 12, x : x + 14] = rng.random((12, 14)) < 0.7
        frames.append([crop for mask in masks if (crop := crop_mask(mask)) is not None])
    found = mask_overlap(frames, height, width)(0, 1)
    whole = [[paste_mask(crop, height, width) for crop in frame] for frame in frames]
    expected = [[(a & b).sum() / (a | b).sum() for b in whole[1]] for a in whole[0]]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.max() > 0.1
