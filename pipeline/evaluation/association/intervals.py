"""Is the difference between two embeddings more than chance? Paired bootstrap over people.

Identities of a sequence are drawn again with replacement, as many as there are, the same draw for both embeddings and
all scores. The score is worked out from the drawn identities' own sums, and a mean is taken over sequences as in the
report. Sequences are kept as they are, so the interval speaks of other people in these scenes, not of other scenes. The
boxes of one person are not independent, which is why people are drawn and not boxes.

What is exact and what is not: rank-1 and mAP are sums over queries, and each query belongs to one identity; the
galleries stay as they were. AssA is a mean over matched boxes, and each belongs to one ground-truth identity; but
neither the linking nor the matching is done again for a draw, so a drawn identity keeps its confusions with people who
were not drawn, and the thresholds of both embeddings stay as they were chosen.
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
        """(R,) the score when identity i counts weights[r, i] times; NaN where nothing is left to divide by."""
        below = weights @ self.denominator
        ratio = np.divide(weights @ self.numerator, below, out=np.zeros_like(below), where=below > 0)
        mean: NDArray[np.float64] = np.where((below > 0).any(axis=1), ratio.mean(axis=1), np.nan)
        return mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Fractions: the score of both, their difference (first minus second), and where 95 % of the draws lie."""

    first: float
    second: float
    difference: float
    low: float
    high: float


def association_sums(overlaps: Overlaps, person: NDArray[np.int64], num_people: int) -> PersonSums:
    """HOTA's association (Luiten et al. 2021, eq. 7 and 11) split by ground-truth identity.

    Args:
        overlaps: of the given boxes with the linked ones.
        person: (ids,) person of each ground-truth id; one person has an id in every phase.
        num_people: I.
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

    A sequence without anything to score (by anybody who was drawn) is left out of the mean of that draw.

    Args:
        first, second: by score, one entry a sequence, with the same identities in both.
        draws: how often identities are drawn.
        seed: of the draws.

    Returns:
        By score; None where nothing can be scored.
    """
    rng = np.random.default_rng(seed)
    longest = max(first.values(), key=len, default=())
    people = [len(sums.numerator) for sums in longest]
    weights = [np.concatenate([np.ones((1, n)), _draw(rng, n, draws)]) for n in people]
    found: dict[str, Interval | None] = {}
    for name, sums in first.items():
        if not sums or len(sums) != len(second[name]):  # one of the two could not be scored
            found[name] = None
            continue
        ours, theirs = _means(sums, weights), _means(second[name], weights)
        drawn = (ours - theirs)[1:]
        drawn = drawn[np.isfinite(drawn)]
        if not np.isfinite(ours[0] - theirs[0]) or len(drawn) == 0:
            found[name] = None
            continue
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        found[name] = Interval(
            first=float(ours[0]),
            second=float(theirs[0]),
            difference=float(ours[0] - theirs[0]),
            low=float(low),
            high=float(high),
        )
    return found


def _draw(rng: np.random.Generator, people: int, draws: int) -> NDArray[np.float64]:
    if people == 0:
        return np.zeros((draws, 0))
    return rng.multinomial(people, np.full(people, 1 / people), size=draws).astype(np.float64)


def _means(sums: Sequence[PersonSums], weights: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """(1 + draws,) plain mean over sequences of the score under each draw, the first being everybody once."""
    scores = np.array([entry.scores(drawn) for entry, drawn in zip(sums, weights)])
    there = np.isfinite(scores)
    count = there.sum(axis=0)
    mean: NDArray[np.float64] = np.where(
        count > 0, np.where(there, scores, 0).sum(axis=0) / np.maximum(1, count), np.nan
    )
    return mean
