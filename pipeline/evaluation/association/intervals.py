"""Confidence intervals for the difference between two embeddings, by a paired bootstrap over people.

Each draw resamples the identities of a sequence with replacement, as many as there are, the same for both embeddings
and all scores. The score is computed from the sums of the drawn identities, and averaged over sequences as in the
report. Sequences are not resampled, so the interval covers other people in these scenes, not other scenes. People are
drawn instead of boxes because the boxes of one person are not independent.

For rank-1 and mAP this is exact up to the galleries, which do not change: they are sums over queries, and each query
belongs to one identity. AssA is a mean over matched boxes, and each belongs to one ground-truth identity; but linking
and matching are not repeated for a draw, so a drawn identity keeps its confusions with people who were not drawn, and
the thresholds of both embeddings do not change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.evaluation.assignment import best_pairs
from trackmill.pipeline.evaluation.box_overlaps import EPS
from trackmill.pipeline.evaluation.metrics.hota import THRESHOLDS, alignment
from trackmill.pipeline.evaluation.metrics.retrieval import RetrievalCounts
from trackmill.pipeline.evaluation.overlaps import Overlaps

LEVEL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PersonSums:
    """A score of one sequence as a ratio of sums over identities, averaged over T thresholds.

    Args:
        numerator, denominator: (I, T) float64, one row for each identity.
    """

    numerator: NDArray[np.float64]
    denominator: NDArray[np.float64]

    def scores(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """(R,) the score when identity i counts weights[r, i] times; NaN where all denominators are 0."""
        below = weights @ self.denominator
        ratio = np.divide(weights @ self.numerator, below, out=np.zeros_like(below), where=below > 0)
        mean: NDArray[np.float64] = np.where((below > 0).any(axis=1), ratio.mean(axis=1), np.nan)
        return mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Scores of both, their difference (first minus second), and the bounds of 95 % of the draws; fractions."""

    first: float
    second: float
    difference: float
    low: float
    high: float


def association_sums(overlaps: Overlaps, person: NDArray[np.int64], num_people: int) -> PersonSums:
    """HOTA's association (Luiten et al. 2021, eq. 7 and 11) split by ground-truth identity.

    Args:
        overlaps: of the given boxes with the linked ones.
        person: (ids,) person of each ground-truth id; a person has a separate id in every phase.
        num_people: number of people, I.
    """
    who = overlaps.gt_ids[overlaps.pair_gt] * overlaps.num_pred_ids + overlaps.pred_ids[overlaps.pair_pred]
    frames_gt = np.bincount(overlaps.gt_ids, minlength=overlaps.num_gt_ids)
    frames_pred = np.bincount(overlaps.pred_ids, minlength=overlaps.num_pred_ids)
    chosen = best_pairs(overlaps, alignment(overlaps, who, frames_gt, frames_pred) * overlaps.pair_iou)
    couples, which = np.unique(who[chosen], return_inverse=True)
    passed = overlaps.pair_iou[chosen][:, None] >= (THRESHOLDS - EPS)[None]
    matches = np.zeros((len(couples), len(THRESHOLDS)))
    np.add.at(matches, which, passed)
    gt, pred = np.divmod(couples, max(1, overlaps.num_pred_ids))
    alone = frames_gt[gt][:, None] + frames_pred[pred][:, None] - matches
    numerator, denominator = np.zeros((2, num_people, len(THRESHOLDS)))
    np.add.at(numerator, person[gt], matches * matches / np.maximum(1, alone))
    np.add.at(denominator, person[gt], matches)
    return PersonSums(numerator=numerator, denominator=denominator)


def retrieval_sums(counts: RetrievalCounts) -> dict[str, PersonSums]:
    """`rank1` and `mAP` split by identity."""
    queries = counts.queries[:, None]
    return {
        "rank1": PersonSums(numerator=counts.hits[:, None], denominator=queries),
        "mAP": PersonSums(numerator=counts.precision[:, None], denominator=queries),
    }


def paired_intervals(
    first: Mapping[str, Sequence[PersonSums]], second: Mapping[str, Sequence[PersonSums]], *, draws: int, seed: int
) -> dict[str, Interval | None]:
    """Interval of every score's difference.

    A sequence in which no drawn identity can be scored is left out of the mean of that draw.

    Args:
        first, second: by score, one entry a sequence, with the same identities in both.
        draws: number of draws.
        seed: seed of the draws.

    Returns:
        By score; None where nothing can be scored.
    """
    rng = np.random.default_rng(seed)
    longest = max(first.values(), key=len, default=())
    people = [len(sums.numerator) for sums in longest]
    weights = [np.concatenate([np.ones((1, n)), _draw(rng, n, draws)]) for n in people]
    intervals: dict[str, Interval | None] = {}
    for name, sums in first.items():
        if not sums or len(sums) != len(second[name]):  # one of the two could not be scored
            intervals[name] = None
            continue
        ours, theirs = _means(sums, weights), _means(second[name], weights)
        drawn = (ours - theirs)[1:]
        drawn = drawn[np.isfinite(drawn)]
        if not np.isfinite(ours[0] - theirs[0]) or len(drawn) == 0:
            intervals[name] = None
            continue
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        intervals[name] = Interval(
            first=float(ours[0]),
            second=float(theirs[0]),
            difference=float(ours[0] - theirs[0]),
            low=float(low),
            high=float(high),
        )
    return intervals


def _draw(rng: np.random.Generator, people: int, draws: int) -> NDArray[np.float64]:
    if people == 0:
        return np.zeros((draws, 0))
    return rng.multinomial(people, np.full(people, 1 / people), size=draws).astype(np.float64)


def _means(sums: Sequence[PersonSums], weights: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """(1 + draws,) mean of the score over sequences for each draw; the first has every identity once."""
    scores = np.array([entry.scores(drawn) for entry, drawn in zip(sums, weights)])
    there = np.isfinite(scores)
    count = there.sum(axis=0)
    mean: NDArray[np.float64] = np.where(
        count > 0, np.where(there, scores, 0).sum(axis=0) / np.maximum(1, count), np.nan
    )
    return mean
