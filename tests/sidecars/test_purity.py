"""Purity of chains against objects that are known, counted by hand."""

from __future__ import annotations

import numpy as np

from trackmill.pipeline.sidecars.chains.purity import count_purity, purity_lines, purity_of

LEFT, RIGHT, NOBODY = [0, 0, 10, 10], [20, 0, 30, 10], [50, 50, 60, 60]


def truth(count: int, known: tuple[int, ...] = ()) -> list:
    """Two objects, 7 on the left and 9 on the right, in every frame that is known."""
    boxes, ids = np.array([LEFT, RIGHT], np.float32), np.array([7, 9])
    return [(boxes, ids) if not known or t in known else None for t in range(count)]


def test_by_hand() -> None:
    # Chain 0 stays left; chain 1 goes from right to left where chain 0 has ended; chain 2 is nobody, then right.
    rows = [
        *((t, 0, LEFT) for t in range(3)),
        *((t, 1, RIGHT) for t in range(3)),
        *((t, 1, LEFT) for t in range(3, 5)),
        (3, 2, NOBODY),
        (4, 2, RIGHT),
    ]
    rows.sort(key=lambda row: row[:2])
    frames, chains, boxes = zip(*rows)
    counts = count_purity(np.array(frames), np.array(chains), np.array(boxes, np.float32), truth(5))
    purity = purity_of(counts)
    # Links: chain 0 has 2 pure ones, chain 1 has 2 + 1 pure ones and a mixed one, chain 2 one with an unknown box.
    assert purity["runs"]["2"] == {"pure": 5, "mixed": 1, "unmatched": 1, "purity": 5 / 6}
    assert purity["runs"]["5"] == {"pure": 0, "mixed": 1, "unmatched": 0, "purity": 0.0}
    assert purity["runs"]["10"]["purity"] is None
    # Two objects in five frames take eight steps: 7 in links 0-1, 1-2, 3-4, 9 in 0-1, 1-2.
    assert (purity["steps"], purity["found"]) == (8, 5)
    assert purity_lines(purity)[0] == "links: 0.833 of 6 keep one object; 1 more have a box that is no known object"


def test_one_to_one_and_only_where_something_is_known() -> None:
    near = [0, 0, 10, 9]  # overlaps the left object as well, and is second to it
    rows = [(0, 0, LEFT), (0, 1, near), (1, 0, LEFT), (1, 1, near), (2, 0, LEFT)]
    frames, chains, boxes = zip(*rows)
    counts = count_purity(np.array(frames), np.array(chains), np.array(boxes, np.float32), truth(3, known=(0, 1)))
    purity = purity_of(counts)
    assert purity["runs"]["2"] == {"pure": 1, "mixed": 0, "unmatched": 1, "purity": 1.0}
    assert purity["steps"] == 2


def test_nothing_known_is_no_purity() -> None:
    counts = count_purity(np.array([0, 1]), np.array([0, 0]), np.array([LEFT, LEFT], np.float32), [None, None])
    assert purity_of(counts) == {} == purity_of({"kept": 3})
    counts = count_purity(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 4), np.float32), truth(2))
    assert purity_of(counts)["recall"] == 0, "objects that no chain follows are no silence"
