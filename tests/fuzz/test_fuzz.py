"""The fuzzer sees every fault that was planted, its inputs can be drawn again, and no target has a fault."""

from __future__ import annotations

import random
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.fuzz import planted
from tests.fuzz.campaign import Campaign, grouped, table
from tests.fuzz.mutators import BY_SUFFIX, Change, mutate, structure_of
from tests.fuzz.outcomes import FAILURES, digest
from tests.fuzz.targets import TARGETS

SEED = 13


def test_planted_faults_are_caught_and_blamed_on_their_input(tmp_path: Path) -> None:
    campaign = Campaign(planted.TARGETS["planted"], 0, tmp_path, module="tests.fuzz.planted")
    try:
        found = {
            word: campaign.try_files(number, 0, {"planted.txt": word}, Change.BYTES)
            for number, word in enumerate(planted.EXPECTED)
        }
    finally:
        campaign.close()
    assert {word: outcome.kind for word, outcome in found.items()} == planted.EXPECTED
    assert "_run" in found[b"loop"].place and "_run" in found[b"death"].place, "where it hung, and where it died"
    failures = [word for word, kind in planted.EXPECTED.items() if kind in FAILURES]
    for finding, word in zip(campaign.tally.findings, failures, strict=True):
        assert (Path(finding.stored) / "input" / "planted.txt").read_bytes() == word
        assert f"--target planted --seed 0 --only {finding.iteration}" in str(finding)
    assert "| planted | 14 | 2 | 2 | 0 | 3 | 3 | 1 | 1 | 1 | 1 |" in table([campaign.tally])


def test_the_same_numbers_draw_the_same_input() -> None:
    seed = {"a.json": b'{"boxes": [1, 2, 3], "name": "x"}', "b.txt": b"1,2,3\n4,5,6\n"}

    def draw(number: int) -> object:
        return mutate(random.Random(f"{number}"), seed, ("*",), 0.3)

    assert [draw(number) for number in range(50)] == [draw(number) for number in range(50)]
    assert sum(draw(number)[0] != seed for number in range(50)) > 45
    changes = {draw(number)[1] for number in range(50)}
    assert changes == set(Change)


@pytest.mark.slow
def test_every_change_of_structure_finds_its_structure() -> None:
    """A change that fails is replaced by one of bytes, and nobody would see that it never happens."""
    left = {change for changes in BY_SUFFIX.values() for change in changes}
    for target in TARGETS.values():
        for files in target.seeds() if left and not target.name.startswith("job-") else []:
            for name, data in files.items():
                if any(fnmatch(name, pattern) for pattern in target.mutated):
                    changing = left & set(structure_of(name))
                    left -= {each for each in changing if any(each(random.Random(i), data) != data for i in range(5))}
    assert not left


def test_what_was_understood_is_compared_to_the_last_bit(tmp_path: Path) -> None:
    assert digest([1.0, "a"], tmp_path) != digest([1, "a"], tmp_path)
    assert digest({"a": [1], "b": []}, tmp_path) != digest({"a": [], "b": [1]}, tmp_path)
    assert digest(f"{tmp_path}/x", tmp_path) == digest("/x", tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", TARGETS)
def test_damaged_and_hostile_input(name: str, tmp_path: Path) -> None:
    """Two minutes over all targets, always the same inputs; `python -m tests.fuzz` goes on from there."""
    campaign = Campaign(TARGETS[name], SEED, tmp_path)
    try:
        campaign.run(iterations=TARGETS[name].share)
    finally:
        campaign.close()
    shown = [f"{finding}\n({count} of this kind)" for finding, count in grouped(campaign.tally.findings)]
    assert not shown, "\n\n".join(shown)
