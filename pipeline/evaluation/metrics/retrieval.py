"""Same-identity retrieval: how well an embedding finds the same identity among all objects `gap` frames later.

Every object of frame t is a query; the gallery is all objects of frame t + gap. Queries whose identity is not in the
gallery are left out. This needs no threshold and no linking, so it compares embeddings with less noise than AssA does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class RetrievalCounts:
    """Sums over the queries of each identity.

    Args:
        people: (I,) int64 identities, ascending, also those without a query.
        queries: (I,) float64 number of queries.
        hits: (I,) number of queries with their own identity at rank 1.
        precision: (I,) sum of the average precision of the queries: 1 / rank, as one gallery object is right.
    """

    people: NDArray[np.int64]
    queries: NDArray[np.float64]
    hits: NDArray[np.float64]
    precision: NDArray[np.float64]

    def scores(self) -> dict[str, float] | None:
        """`rank1` and `mAP`, fractions over all queries; None without any query."""
        total = float(self.queries.sum())
        if total == 0:
            return None
        return {"rank1": float(self.hits.sum()) / total, "mAP": float(self.precision.sum()) / total}


def retrieval(
    vectors: NDArray[np.floating], frames: NDArray[np.integer], ids: NDArray[np.integer], gap: int
) -> RetrievalCounts:
    """Rank the gallery of each query by cosine.

    An object that is exactly as similar as the right one is ranked before it, so that an embedding that is equal for
    all objects gets no hits.

    Args:
        vectors: (N, D), finite; normalised to unit length here.
        frames: (N,) frame number of each object, in any order.
        ids: (N,) identity, unique within a frame.
        gap: number of frames between query and gallery, at least 1.
    """
    people, who = np.unique(ids, return_inverse=True)
    order = np.argsort(frames, kind="stable")
    unit, who = unit_length(vectors)[order], who[order]
    shown, starts, counts = np.unique(np.asarray(frames, np.int64)[order], return_index=True, return_counts=True)
    ends = starts + counts
    place = np.searchsorted(shown, shown + gap)
    place[place == len(shown)] = 0
    ranks, queries = [np.zeros(0)], [np.zeros(0, np.int64)]
    for query in np.flatnonzero(shown[place] == shown + gap).tolist() if len(shown) else []:
        query_rows = slice(starts[query], ends[query])
        gallery = slice(starts[place[query]], ends[place[query]])
        cosine = unit[query_rows] @ unit[gallery].T
        right = who[query_rows, None] == who[None, gallery]
        row, column = np.nonzero(right)
        ranks.append((cosine[row] >= cosine[row, column][:, None]).sum(axis=1).astype(np.float64))
        queries.append(who[query_rows][row])
    rank, identity = np.concatenate(ranks), np.concatenate(queries)

    def by_person(weights: NDArray[Any]) -> NDArray[np.float64]:
        return np.bincount(identity, weights, minlength=len(people)).astype(np.float64)

    return RetrievalCounts(
        people=people,
        queries=by_person(np.ones(len(rank))),
        hits=by_person(rank == 1),
        precision=by_person(1 / rank),
    )


def unit_length(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """(N, D) float32 rows of length 1; a row of zeros stays as it is, so its cosine with everything is 0."""
    vectors = np.asarray(vectors, np.float32)
    # Squares of large float32 numbers would not fit into float32.
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    unit: NDArray[np.float32] = (vectors / np.where(lengths > 0, lengths, 1)[:, None]).astype(np.float32)
    return unit
