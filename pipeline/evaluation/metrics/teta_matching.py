"""TETA's matching: in each cell (the objects of one class in one frame), the assignment with the largest score.

Unlike HOTA, TETA counts pairs without any overlap, so the solver's choice among equal scores changes the result.
Therefore this code adds in the order of the official tool, and gives SciPy the same matrices. Cells of one shape are
computed together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from trackmill.pipeline.evaluation.box_overlaps import EPS

Ints = NDArray[np.int64]

_BLOCK = 1 << 18
"""Largest number of matrix elements in memory at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """Objects to match, ascending by cell.

    Args:
        num_cells: number of cells; objects are matched within a cell.
        gt_cells, gt_ids: (G,) cell and identity of each ground-truth object; identities count from 0.
        pred_cells, pred_ids: (P,) the same of each prediction.
        pair_gt, pair_pred: (K,) rows of all pairs with an overlap; those of two identities ascend by time.
        pair_iou: (K,) float64.
    """

    num_cells: int
    gt_cells: Ints
    gt_ids: Ints
    pred_cells: Ints
    pred_ids: Ints
    pair_gt: Ints
    pair_pred: Ints
    pair_iou: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Block:
    """Some cells of one shape, `rows` ground-truth objects and `columns` predictions each, and the pairs in them.

    Args:
        cells: (B,) numbers of the cells.
        pairs: (k,) indices of their pairs.
        at: index of each pair in an array (B, columns, rows).
    """

    cells: Ints
    rows: int
    columns: int
    pairs: Ints
    at: tuple[Ints, Ints, Ints]

    def dense(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values (K,) of all pairs as an array (B, columns, rows), 0 elsewhere.

        Rows come last because the official tool's matrices have this memory order, after it cuts them out column by
        column; NumPy sums a contiguous axis in another order than the other axis.
        """
        table = np.zeros((len(self.cells), self.columns, self.rows))
        table[self.at] = values[self.pairs]
        return table


def match(problem: Problem) -> tuple[Ints, Ints, NDArray[np.float64]]:
    """Match every cell. Returns ground-truth row, prediction row and IoU (0 without overlap) of each match, (M,)."""
    in_gt = np.bincount(problem.gt_cells, minlength=problem.num_cells)
    in_pred = np.bincount(problem.pred_cells, minlength=problem.num_cells)
    gt_first, pred_first = np.cumsum(in_gt) - in_gt, np.cumsum(in_pred) - in_pred
    blocks = list(_blocks(problem, in_gt, in_pred, gt_first, pred_first))
    weights = _alignment(problem, blocks) * problem.pair_iou
    chunks: list[tuple[Ints, Ints, NDArray[np.float64]]] = []
    for block in blocks:
        rows, columns = _assign(block.dense(weights))
        iou = block.dense(problem.pair_iou)[np.arange(len(rows))[:, None], columns, rows]
        chunks.append(
            (
                (gt_first[block.cells][:, None] + rows).ravel(),
                (pred_first[block.cells][:, None] + columns).ravel(),
                iou.ravel(),
            )
        )
    if not chunks:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    matched_gt, matched_pred, matched_iou = (np.concatenate(part) for part in zip(*chunks))
    return matched_gt, matched_pred, matched_iou


def _blocks(problem: Problem, in_gt: Ints, in_pred: Ints, gt_first: Ints, pred_first: Ints) -> Iterator[_Block]:
    """All cells with both ground truth and predictions, in blocks of one shape, up to `_BLOCK` elements each."""
    active = np.flatnonzero((in_gt > 0) & (in_pred > 0))
    if not len(active):
        return
    active = active[np.lexsort((in_pred[active], in_gt[active]))]
    size = in_gt[active] * in_pred[active]
    # A block ends where the shape changes, and where it is full.
    same = (np.diff(in_gt[active]) == 0) & (np.diff(in_pred[active]) == 0)
    run_starts = np.concatenate([[0], np.flatnonzero(~same) + 1])
    place = np.arange(len(active)) - np.repeat(run_starts, np.diff(np.append(run_starts, len(active))))
    capacity = np.maximum(1, _BLOCK // size)
    starts = np.flatnonzero(place % capacity == 0)
    number = np.zeros(problem.num_cells, np.int64)
    rank = np.zeros(problem.num_cells, np.int64)
    number[active] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(active))))
    rank[active] = place % capacity

    cell = problem.gt_cells[problem.pair_gt]
    order = np.argsort(number[cell], kind="stable")
    cell = cell[order]
    at = (rank[cell], problem.pair_pred[order] - pred_first[cell], problem.pair_gt[order] - gt_first[cell])
    pair_starts = np.searchsorted(number[cell], np.arange(len(starts) + 1)).tolist()
    for i, (begin, end) in enumerate(zip(starts.tolist(), [*starts[1:].tolist(), len(active)])):
        pairs = slice(pair_starts[i], pair_starts[i + 1])
        yield _Block(
            cells=active[begin:end],
            rows=int(in_gt[active[begin]]),
            columns=int(in_pred[active[begin]]),
            pairs=order[pairs],
            at=(at[0][pairs], at[1][pairs], at[2][pairs]),
        )


def _alignment(problem: Problem, blocks: list[_Block]) -> NDArray[np.float64]:
    """Alignment score of the two identities of each pair, (K,): HOTA's soft Jaccard index, within their class."""
    share = np.zeros(len(problem.pair_iou))
    for block in blocks:
        table = block.dense(problem.pair_iou)
        cell, column, row = block.at
        iou = problem.pair_iou[block.pairs]
        total = table.sum(axis=2)[cell, column] + table.sum(axis=1)[cell, row] - iou
        share[block.pairs] = np.where(total > EPS, iou / np.maximum(total, EPS), 0)
    gt, pred = problem.gt_ids[problem.pair_gt], problem.pred_ids[problem.pair_pred]
    width = int(problem.pred_ids.max(initial=0)) + 1
    _, which = np.unique(gt * width + pred, return_inverse=True)
    together = np.bincount(which, share)[which] if len(which) else share
    score: NDArray[np.float64] = together / (
        np.bincount(problem.gt_ids)[gt] + np.bincount(problem.pred_ids)[pred] - together if len(which) else 1
    )
    return score


def _assign(weights: NDArray[np.float64]) -> tuple[Ints, Ints]:
    """Rows and columns of the matches of each matrix (B, columns, rows): each (B, min(rows, columns))."""
    count, num_columns, num_rows = weights.shape
    if min(num_columns, num_rows) == 1:
        # A single object takes the first of its best partners, as in SciPy.
        best = weights.reshape(count, -1).argmax(axis=1)[:, None]
        return best % num_rows, best // num_rows
    costs = np.ascontiguousarray(-weights.transpose(0, 2, 1))
    solved = np.array([linear_sum_assignment(cost) for cost in costs])
    return solved[:, 0], solved[:, 1]
