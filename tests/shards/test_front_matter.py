"""The head of a data set's card: licences as the Hub spells them, and globs that tell pictures from clips."""

from __future__ import annotations

import fnmatch
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.make_dataset import CONFIG, make_dataset, make_item, make_media, write_samples
from trackmill.pipeline.shards.card import data_card
from trackmill.pipeline.shards.front_matter import front_matter, hub_licence, mixed_shards
from trackmill.pipeline.shards.manifest import write_manifest
from trackmill.pipeline.shards.manifest_source import current_manifest
from trackmill.pipeline.shards.receipts import write_receipt
from trackmill.pipeline.shards.shard_names import patterns
from trackmill.pipeline.shards.totals import Totals
from trackmill.schemas.keys import shard_name


def parsed(card: str) -> dict[str, Any]:
    """The YAML of a card, as the Hub reads it."""
    _, head, _ = card.split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(head)
    return found


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        (["CC BY 4.0"], "cc-by-4.0"),
        (["CC BY-NC-SA 4.0", "cc_by-nc-sa 4.0"], "cc-by-nc-sa-4.0"),
        (["CC0"], "cc0-1.0"),
        (["unknown"], "unknown"),
        (["Flickr terms"], "other"),
        (["CC BY 4.0", "MIT"], "other"),
        ([], "unknown"),
    ],
)
def test_licences_as_the_hub_spells_them(licences: list[str], expected: str) -> None:
    assert hub_licence(licences) == expected


def test_pictures_and_clips_are_told_apart(tmp_path: Path) -> None:
    layout = make_dataset(str(tmp_path))
    totals = write_manifest(layout)
    found = parsed(data_card(CONFIG, totals))
    assert {each["config_name"]: each["data_files"][0]["path"] for each in found["configs"]} == {
        "pictures": ["shards/part-00000000*.tar"],
        "clips": ["shards/part-00000001*.tar"],
    }
    columns = {each["config_name"]: [row["name"] for row in each["features"]] for each in found["dataset_info"]}
    assert columns["pictures"] == ["jpg", "masks.json", "json", "__key__", "__url__"]
    assert columns["clips"][:10] == [f"f{number:02d}.jpg" for number in range(10)]
    current = current_manifest(layout)
    assert current is not None and current.totals == totals, "the note beside the manifest remembers it"


def test_one_kind_is_all_shards() -> None:
    totals = Totals(pictures=Counter({"part-00000000.tar": 3}), shards=1)
    assert parsed(front_matter(totals))["configs"][0]["data_files"][0]["path"] == ["shards/*.tar"]
    assert "configs" not in parsed(front_matter(Totals()))


def test_a_shard_of_both_is_in_neither(tmp_path: Path) -> None:
    layout = make_dataset(str(tmp_path))
    made = [(make_item("images", "one"), make_media(1), 1), (make_item("videos", "two", frames=3), make_media(2, 3), 2)]
    rows, shards = write_samples(layout, 2, made)
    write_receipt(layout, 2, rows, shards, "f" * 16)
    totals = write_manifest(layout)
    assert mixed_shards(totals) == ["part-00000002.tar"]
    card = data_card(CONFIG, totals)
    paths = [each["data_files"][0]["path"] for each in parsed(card)["configs"]]
    assert paths == [["shards/part-00000000*.tar"], ["shards/part-00000001*.tar"]]
    assert "1 of 4: part-00000002.tar. `trackmill filter" in card


def test_long_clips_have_more_digits() -> None:
    totals = Totals(clips=Counter({"part-00000000.tar": 3}), longest_clip=102)
    names = [row["name"] for row in parsed(front_matter(totals))["dataset_info"][0]["features"]]
    assert names[0] == "f00.jpg" and names[99:101] == ["f99.jpg", "f000.jpg"] and names[201] == "f101.jpg"


NAMES = st.builds(shard_name, st.integers(0, 300) | st.integers(0, 10**8 + 10), st.integers(0, 2), st.integers(0, 1))


@given(st.dictionaries(NAMES, st.booleans(), max_size=60))
def test_patterns_match_what_they_should_and_nothing_else(shards: dict[str, bool]) -> None:
    own = {name for name, wanted in shards.items() if wanted}
    globs = patterns(own, shards.keys() - own)
    assert {name for name in shards if any(fnmatch.fnmatchcase(name, glob) for glob in globs)} == own


def test_patterns_are_short() -> None:
    own = {shard_name(unit) for unit in range(22_000)}
    others = {shard_name(unit) for unit in range(22_000, 30_000)}
    assert patterns(own, others) == ["part-0002[0-1]*.tar", "part-000[0-1]*.tar"]
    assert patterns(others, own) == ["part-0002[2-9]*.tar"]
    assert patterns({"a.tar"}, {"b.tar"}) == ["a.tar"]
