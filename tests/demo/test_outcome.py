"""Who was given which identity: a person keeps one only if it is one, and nobody else's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trackmill.pipeline.demo.outcome import MISSED, lanes, read_given, read_seen

PLACES = {1: 10, 2: 200}
"""Left edge of each person, in frames 1 to 4."""


def text(rows: list[tuple[int, int, int]]) -> str:
    """Of (frame, identity, left)."""
    return "".join(f"{frame},{identity},{left},20,50,100,1,-1,-1,-1\n" for frame, identity, left in rows)


@pytest.fixture
def truth(tmp_path: Path) -> str:
    rows = [(frame, person, left) for frame in range(1, 5) for person, left in PLACES.items()]
    (tmp_path / "gt.txt").write_text(text(rows))
    return str(tmp_path / "gt.txt")


def given(truth: str, rows: list[tuple[int, int, int]]) -> tuple[dict[int, list[int]], int, int, int]:
    result = Path(truth).with_name("result.txt")
    result.write_text(text(rows))
    found = read_given(read_seen(truth), str(result))
    return {who: each.tolist() for who, each in found.identities.items()}, found.kept, found.found, found.num_identities


def test_both_keep_theirs(truth: str) -> None:
    rows = [(frame, person + 6, left) for frame in range(1, 5) for person, left in PLACES.items()]
    assert given(truth, rows) == ({1: [7] * 4, 2: [8] * 4}, 2, 8, 2)


def test_a_second_identity_is_not_kept(truth: str) -> None:
    rows = [(frame, 7 if frame < 3 else 9, 10) for frame in range(1, 5)] + [(frame, 8, 200) for frame in range(1, 5)]
    assert given(truth, rows) == ({1: [7, 7, 9, 9], 2: [8] * 4}, 1, 8, 3)


def test_one_identity_for_both_is_kept_by_none(truth: str) -> None:
    rows = [(1, 7, 10), (2, 7, 10), (3, 7, 200), (4, 7, 200)]
    assert given(truth, rows) == ({1: [7, 7, MISSED, MISSED], 2: [MISSED, MISSED, 7, 7]}, 0, 4, 1)


def test_what_was_missed_is_no_switch_but_who_was_never_found_keeps_none(truth: str) -> None:
    rows = [(1, 0, 10), (4, 0, 12), (2, 3, 60)]
    assert given(truth, rows) == ({1: [0, MISSED, MISSED, 0], 2: [MISSED] * 4}, 1, 2, 1)


def test_nothing_was_tracked(truth: str) -> None:
    assert given(truth, []) == ({1: [MISSED] * 4, 2: [MISSED] * 4}, 0, 0, 0)


def test_the_lanes_have_a_cell_a_box(truth: str) -> None:
    seen = read_seen(truth)
    rows = [(frame, person + 6, left) for frame in range(1, 4) for person, left in PLACES.items()]
    Path(truth).with_name("result.txt").write_text(text(rows))
    found = read_given(seen, str(Path(truth).with_name("result.txt")))
    drawn = str(lanes(seen, [("<b>", found)], 4))
    assert drawn.count("<rect") == 16 and drawn.count('fill="transparent"') == 2 and "person 2, identity 8" in drawn
    assert "&lt;b&gt;" in drawn and "<b>" not in drawn
    assert np.array_equal(seen.frames(2), [1, 2, 3, 4])
