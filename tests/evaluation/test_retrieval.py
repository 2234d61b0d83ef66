"""Same-identity retrieval: ranks worked out by hand, and the rule written out as loops."""

from __future__ import annotations

import numpy as np
import pytest

from trackmill.pipeline.evaluation.metrics.retrieval import RetrievalCounts, retrieval, unit_length


def slow(vectors, frames, ids, gap):
    """Every query, every gallery, one at a time; (rank-1, mAP, queries)."""
    hits, precision = [], []
    unit = [v / np.linalg.norm(v) if np.linalg.norm(v) else v for v in np.asarray(vectors, np.float64)]
    for i in range(len(ids)):
        gallery = [j for j in range(len(ids)) if frames[j] == frames[i] + gap]
        own = [j for j in gallery if ids[j] == ids[i]]
        if own:
            score = unit[i] @ unit[own[0]]
            rank = 1 + sum(unit[i] @ unit[j] >= score for j in gallery if j != own[0])
            hits.append(rank == 1)
            precision.append(1 / rank)
    return (np.mean(hits), np.mean(precision), len(hits)) if hits else (None, None, 0)


def test_ranks_by_hand():
    # Frame 0: persons 1 and 2. Frame 3: person 1 looks like 2 did, 2 like itself, and 7 is new.
    vectors = [[1, 0, 0], [0, 1, 0], [0.1, 0.9, 0], [0, 1, 0], [1, 0, 0.2]]
    counts = retrieval(np.array(vectors), np.array([0, 0, 3, 3, 3]), np.array([1, 2, 1, 2, 7]), gap=3)
    assert counts.people.tolist() == [1, 2, 7]
    assert counts.queries.tolist() == [1, 1, 0]
    # Person 1 asks: 7 is nearer (about .98) than 1's own new look (about .11); 2 is last.
    assert counts.hits.tolist() == [0, 1, 0]
    assert counts.precision.tolist() == [0.5, 1, 0]
    assert counts.scores() == {"rank1": 0.5, "mAP": 0.75}


def test_an_embedding_that_says_the_same_of_everybody_finds_nobody():
    frames = np.repeat([1, 2], 4)
    counts = retrieval(np.ones((8, 16)), frames, np.tile(np.arange(4), 2), gap=1)
    assert counts.scores() == {"rank1": 0.0, "mAP": 0.25}


def test_zero_vectors_match_nobody():
    counts = retrieval(np.zeros((4, 3)), np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), gap=1)
    assert counts.scores() == {"rank1": 0.0, "mAP": 0.5}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("gap", [1, 2, 5])
def test_equals_the_rule_written_as_loops(seed, gap):
    rng = np.random.default_rng(seed)
    present = rng.random((12, 9)) < 0.6  # frames x people
    frames, ids = np.nonzero(present)
    frames = frames * 2 if seed % 2 else frames  # frames without anybody
    shuffled = rng.permutation(len(frames))
    frames, ids = frames[shuffled] + 1, ids[shuffled] - 3
    # Continuous numbers have no ties, on which float32 and float64 could differ.
    vectors = rng.normal(0, 1, (9, 6))[ids + 3] + rng.normal(0, 0.8, (len(frames), 6))
    rank1, average, queries = slow(vectors, frames, ids, gap)
    counts = retrieval(vectors, frames, ids, gap)
    assert counts.queries.sum() == queries
    if queries == 0:
        assert counts.scores() is None
    else:
        assert counts.scores() == pytest.approx({"rank1": rank1, "mAP": average}, abs=1e-12)


def test_nothing_to_ask():
    empty = np.zeros(0, np.int64)
    for counts in (
        retrieval(np.zeros((0, 5)), empty, empty, gap=1),
        retrieval(np.ones((2, 5)), np.array([1, 2]), np.array([1, 2]), gap=1),
        retrieval(np.ones((2, 5)), np.array([1, 2]), np.array([1, 1]), gap=9),
    ):
        assert isinstance(counts, RetrievalCounts)
        assert counts.scores() is None


def test_unit_length_of_extreme_numbers():
    vectors = np.array([[3e30, 4e30], [3e-30, 4e-30], [0, 0], [-6, 8]])
    assert unit_length(vectors) == pytest.approx(np.array([[0.6, 0.8], [0.6, 0.8], [0, 0], [-0.6, 0.8]]), abs=1e-6)
    assert unit_length(np.array([[3, 4]], np.float16)).dtype == np.float32
