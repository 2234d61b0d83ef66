"""Chooses the threshold of the linking rule: the smallest cosine of a link, which depends on the embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.evaluation.association.linking import link
from trackmill.pipeline.evaluation.association.sequences import BoxSequence
from trackmill.pipeline.evaluation.metrics.hota import hota

STRIDE = 10
"""Thresholds are chosen at the standard stride, whatever strides are reported, so that runs can be compared."""
_STEPS = 20
_SAMPLE = 1 << 20
"""Number of cosines that set the range of candidates; more would not change it."""


def choose_threshold(
    sequences: Sequence[BoxSequence], vectors: Mapping[str, NDArray[np.float32]], *, memory: int, ema: float
) -> tuple[float, dict[float, float]]:
    """The candidate with the highest mean AssA at stride 10; among equal ones, the middle one.

    The 20 candidates are evenly spaced from the 1st to the 99th percentile of the cosines between boxes to be linked:
    the cosines of some embeddings cover -1..1, those of others are all above .9.

    Args:
        sequences: the development set; each has at least one box.
        vectors: by name of the sequence, (N, D) of unit length.
        memory, ema: see `link`.

    Returns:
        The threshold, and the mean AssA (fraction) of every candidate.
    """
    tried: dict[float, float] = {}
    for threshold in candidates(sequences, vectors):
        scores = []
        for sequence in sequences:
            known = vectors[sequence.name]
            tracks = link(known, sequence.frames, threshold=threshold, stride=STRIDE, memory=memory, ema=ema)
            scores.append(hota(sequence.linked(tracks, STRIDE)).scores()["AssA"])
        tried[threshold] = float(np.mean(scores))
    best = max(tried.values())
    level = [threshold for threshold, score in tried.items() if score >= best - 1e-12]
    return level[len(level) // 2], tried


def candidates(sequences: Sequence[BoxSequence], vectors: Mapping[str, NDArray[np.float32]]) -> list[float]:
    """Thresholds to try, ascending, rounded so that the printed value is the exact one."""
    cosines = np.concatenate([_cosines(sequence, vectors[sequence.name]) for sequence in sequences])
    low, high = np.quantile(cosines, [0.01, 0.99]) if len(cosines) else (-1.0, 1.0)
    return sorted({round(float(value), 6) for value in np.linspace(low, high, _STEPS)})


def _cosines(sequence: BoxSequence, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosines of all pairs of boxes in frames that are `STRIDE` apart, up to about `_SAMPLE`."""
    shown, starts, counts = np.unique(sequence.frames, return_index=True, return_counts=True)
    later = np.searchsorted(shown, shown + STRIDE)
    chunks, total = [np.zeros(0, np.float32)], 0
    for here, there in enumerate(later.tolist()):
        if there < len(shown) and shown[there] == shown[here] + STRIDE and total < _SAMPLE:
            rows, columns = (
                slice(starts[here], starts[here] + counts[here]),
                slice(starts[there], starts[there] + counts[there]),
            )
            chunks.append((vectors[rows] @ vectors[columns].T).ravel())
            total += len(chunks[-1])
    return np.concatenate(chunks)
