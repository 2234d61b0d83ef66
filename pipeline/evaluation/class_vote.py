"""Majority vote: gives each predicted track the class that most of its boxes have.

MASA's evaluation does this to its tracker's output before TETA (`majority_vote` in its `tao_teta_metric.py`, the option
`tcc`); it is not part of TETA, and changes ClsA.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def vote(tracks: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Labels (N,) after the vote; among equally frequent ones the smallest category id wins, as in MASA.

    Args:
        tracks: (N,) number of the track of each box, different in different videos.
        labels: (N,) category ids as in the file, before categories are merged.
    """
    if not len(labels):
        return labels
    track_names, track = np.unique(tracks, return_inverse=True)
    label_names, label = np.unique(labels, return_inverse=True)
    ballots, votes = np.unique(track * len(label_names) + label, return_counts=True)
    voter, choice = ballots // len(label_names), ballots % len(label_names)
    # Sorted by track, then most votes, then smallest label; the first of each track wins.
    order = np.lexsort((choice, -votes, voter))
    first = order[np.searchsorted(voter[order], np.arange(len(track_names)))]
    winners: NDArray[np.int64] = label_names[choice[first]]
    return winners[track]
