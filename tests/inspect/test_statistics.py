"""Statistics against numbers counted by hand, the choice of samples, and the text that shows them."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest

from tests.make_dataset import CONFIG, make_dataset, make_item, make_row
from trackmill.pipeline.console.progress_line import ProgressLine
from trackmill.pipeline.inspect.selection import evenly_spaced, select_rows, source_of
from trackmill.pipeline.inspect.statistics import Histogram, collect, count_near_duplicates
from trackmill.pipeline.inspect.table import cell, dataset_parts, print_tables, sample_parts, statistics_parts
from trackmill.pipeline.media.drawing.palette import identity_colour
from trackmill.pipeline.shards.card import data_card, escape, write_card
from trackmill.pipeline.shards.reader import open_dataset, read_sample
from trackmill.pipeline.shards.receipt_stream import stream_receipts
from trackmill.pipeline.shards.totals import totals_of
from trackmill.pipeline.storage.files import read_bytes


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return open_dataset(make_dataset(str(tmp_path_factory.mktemp("set"))).root)


def test_counts_of_a_known_set(dataset):
    found = collect(dataset)
    frames = 4 + 10
    assert (found.samples_read, found.images, found.clips, found.frames) == (5, 4, 1, frames)
    # Every frame: two objects; four proposals, the last a copy of the third; five small and two unstable refused.
    assert (found.num_objects, found.num_proposals, found.num_negatives) == (2 * frames, 4 * frames, 2 * frames)
    assert found.num_near_duplicates == frames and found.near_duplicates == 0.25
    assert found.refused == {"small": 5 * frames, "unstable": 2 * frames}
    assert found.statuses == {"ok": 5, "quarantined": 1, "skipped": 1}
    assert found.quarantined == {"TruncatedMedia": 1}
    assert found.sources == {"images": 4, "videos": 1} and found.licenses == {"CC BY 4.0": 4, "unknown": 1}
    assert found.sizes == {"64 x 48": 5}
    assert sum(found.proposal_scores.counts) == sum(found.proposal_areas.counts) == 4 * frames
    assert found.bytes_stored == sum(row.size for row in dataset.stored)


def test_a_part_is_the_same_part_every_time(dataset):
    part = collect(dataset, max_samples=2)
    assert part.samples_read == 2 and part.sources == {"images": 1, "videos": 1}
    assert part.as_dict() == collect(dataset, max_samples=2).as_dict()


def test_histogram_keeps_what_lies_beyond_its_edges():
    histogram = Histogram((0.0, 1.0, 2.0))
    histogram.add([-5, 0, 0.99, 1, 2, 99])
    assert histogram.counts == [3, 3]


def test_near_duplicates_count_later_boxes_only():
    boxes = np.array([[0, 0, 100, 100], [0, 0, 100, 95], [0, 0, 100, 100], [0, 0, 100, 80]], np.float32)
    assert count_near_duplicates(boxes) == 2
    assert count_near_duplicates(np.zeros((0, 4), np.float32)) == 0


def test_selection_covers_every_source_and_spreads():
    rows = [make_row(make_item("images", f"a{i}"), 0, i) for i in range(95)]
    rows += [make_row(make_item("sav", f"b{i}"), 1, i) for i in range(4)]
    rows += [make_row(make_item("mot", "c"), 2, 0)]
    chosen = select_rows(rows, 10)
    assert Counter(source_of(row.key) for row in chosen) == {"images": 8, "sav": 1, "mot": 1}
    positions = [row.position for row in chosen if source_of(row.key) == "images"]
    assert positions == sorted(set(positions)) and max(np.diff(positions)) <= 13
    assert select_rows(rows, 100) == rows
    assert len(select_rows(rows, 2)) == 2


@pytest.mark.parametrize(("length", "count", "expected"), [(3, 8, [0, 1, 2]), (10, 4, [0, 3, 6, 9]), (9, 1, [0])])
def test_evenly_spaced(length, count, expected):
    assert evenly_spaced(length, count) == expected


def test_colours_of_identities_are_stable_and_differ():
    colours = [identity_colour(i) for i in range(40)]
    assert colours == [identity_colour(i) for i in range(40)] and len(set(colours)) == 30


def test_text_is_plain_where_there_is_no_terminal(dataset, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = io.StringIO()
    sample = read_sample(dataset, dataset.stored[-1].key)
    print_tables([*dataset_parts(dataset), *statistics_parts(collect(dataset)), *sample_parts(sample)], out)
    text = out.getvalue()
    assert "\x1b" not in text
    assert "part-00000000-01.tar" in text and "7 items: 5 ok, 1 quarantined, 1 skipped" in text
    assert "near duplicates  25.0%" in text and "frame 36 at 1.50 s: objects [7, 12]; 4 proposals" in text


def test_untrusted_text_brings_neither_markup_nor_control_codes():
    out = io.StringIO()
    print_tables([cell("[bold]a[/bold]\x1b[31m\nb")], out)
    assert out.getvalue() == "[bold]a[/bold]\\x1b[31m\\x0ab\n"


def test_progress_is_silent_for_short_work_and_tells_rate_for_long():
    quiet, loud = io.StringIO(), io.StringIO()
    ProgressLine(10, "read", interval_s=60, stream=quiet)(1)
    ProgressLine(10, "read", interval_s=0, stream=loud)(4)
    assert quiet.getvalue() == "" and loud.getvalue().startswith("read 4 of 10 samples, ")


def totals(dataset):
    return totals_of(stream_receipts(dataset.layout))


def test_card_says_what_how_and_how_to_read(dataset):
    write_card(dataset.layout, CONFIG, totals(dataset))
    text = read_bytes(dataset.layout.card).decode()
    assert text == data_card(CONFIG, totals(dataset)), "deterministic"
    for part in ("| samples | 5 |", "| frames | 14 |", "| videos | 1 |", "| CC BY 4.0 | 4 |", "| TruncatedMedia | 1 |"):
        assert part in text
    assert "| graph.min\\_area | 0.001 |" in text and "*parts*" in text and CONFIG["fingerprint"] in text


def test_card_says_that_boxes_may_leave_frames(dataset):
    assert "amodal: they may leave" not in data_card(CONFIG, totals(dataset))
    config = CONFIG | {"read": {**CONFIG.get("read", {}), "amodal": True}}
    assert "- Boxes of objects are amodal: they may leave" in data_card(config, totals(dataset))


def test_the_program_in_the_card_runs(dataset, monkeypatch, capsys):
    program = data_card(CONFIG, totals(dataset)).split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(dataset.layout.root)
    exec(compile(program, "card", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(row.key for row in dataset.stored)
    assert all(line.endswith("(64, 48) 4 2") for line in lines)


def test_card_escapes_untrusted_text():
    assert escape("a|b\n<script>[x](y)") == r"a\|b \<script\>\[x\](y)"
    assert "https://" not in escape("https://host/x")
