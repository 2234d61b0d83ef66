"""Several trackers in one table, one JSON and one page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trackmill import evaluate
from trackmill.jobs.evaluate import main
from trackmill.pipeline.evaluation.compare import named_results
from trackmill.pipeline.evaluation.report.comparison import Comparison

FOUND = {"all": (1, 2, 3, 4), "half": (1, 2), "none": ()}
"""Frames in which each tracker finds the one object."""


@pytest.fixture
def case(tmp_path: Path) -> Path:
    for name in ("A", "B"):
        for side, frames in {"gt": (1, 2, 3, 4), **FOUND}.items():
            (tmp_path / side).mkdir(exist_ok=True)
            text = "".join(f"{frame},1,{10 * frame},20,30,40,1,1,1\n" for frame in frames)
            (tmp_path / side / f"{name}.txt").write_text(text)
    return tmp_path


def call(case: Path, *results: str, more: tuple[str, ...] = ()) -> int:
    return main(["--benchmark", "mot17", "--gt", str(case / "gt"), "--results", *results, *more])


def table(lines: list[str], title: str) -> dict[str, list[str]]:
    """Rows by name of the table whose heading begins with a title."""
    (start,) = (number for number, line in enumerate(lines) if line.startswith(title))
    rows = lines[start:]
    return {row.split()[0]: row.split()[1:] for row in rows[: rows.index("") if "" in rows else None]}


def test_one_row_a_tracker(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ("--output", str(case / "out.json"), "--html", str(case / "out.html"))
    assert call(case, f"ours={case / 'all'}", f"SORT={case / 'half'}", f"GT={case / 'none'}", more=files) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "mot17 · 3 trackers · boxes · 2 sequences · 1 class"
    rows = table(lines, "tracker")
    place = rows["tracker"].index("MOTA")
    assert {name: row[place] for name, row in rows.items()} == {
        "tracker": "MOTA",
        "ours": "100.000",
        "SORT": "50.000",
        "GT": "0.000",
    }
    # A column a tracker, also of one that is called like a score.
    assert table(lines, "HOTA by sequence")["HOTA"] == ["by", "sequence", "ours", "SORT", "GT"]
    assert table(lines, "HOTA by sequence")["A"] == ["100.000", "50.000", "0.000"]
    assert "note: GT: A, B: no predictions; all 4 objects are missed" in lines
    # Everything that one report alone would hold.
    both = json.loads((case / "out.json").read_text())
    assert call(case, str(case / "half"), more=("--output", str(case / "one.json"))) == 0
    assert both["trackers"]["SORT"] == json.loads((case / "one.json").read_text())
    assert list(both["trackers"]) == ["ours", "SORT", "GT"] and both["benchmark"] == "mot17"
    page = (case / "out.html").read_text()
    assert page.startswith("<!doctype html>") and page.count("100.000") >= 3 and ">SORT</th>" in page


def test_one_tracker_with_a_name(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A script that passes one or more trackers gets one form of JSON."""
    files = ("--output", str(case / "out.json"), "--html", str(case / "out.html"))
    assert call(case, f"ours={case / 'half'}", more=files) == 0
    assert capsys.readouterr().out.startswith("mot17 · 1 tracker · boxes")
    assert json.loads((case / "out.json").read_text())["trackers"]["ours"]["metrics"]["MOTA"] == 50


def test_the_order_and_names_of_the_command_count(case: Path) -> None:
    found = evaluate(case / "gt", {"b": case / "half", "a": case / "all"}, metrics=("clear",))
    assert isinstance(found, Comparison) and found.score == "MOTA"
    assert list(found.trackers) == ["b", "a"]
    assert found.by_sequence()["B"] == {"b": 50, "a": 100}
    assert found.trackers["a"].metrics == evaluate(case / "gt", case / "all", metrics=("clear",)).metrics


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["results/"], "results/"),
        (["A=results/"], {"A": "results/"}),
        (["A=x", "B=s3://bucket/run=3/x"], {"A": "x", "B": "s3://bucket/run=3/x"}),
        (["s3://bucket/run=3/x"], "s3://bucket/run=3/x"),
        (["./lr=3"], "./lr=3"),
        (["trackers/sort/", "trackers/ocsort"], {"sort": "trackers/sort/", "ocsort": "trackers/ocsort"}),
    ],
)
def test_names_and_paths(words: list[str], found: object) -> None:
    assert named_results(words) == found


def test_a_path_with_an_equals_sign_is_a_path_where_it_exists(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case)
    (case / "half").rename(case / "lr=3")
    assert named_results(["lr=3"]) == "lr=3"
    assert named_results(["all", "lr=3"]) == {"all": "all", "lr=3": "lr=3"}
    assert named_results(["A=lr=3"]) == {"A": "lr=3"}
    assert evaluate(case / "gt", case / "lr=3").metrics["MOTA"] == 50
    assert call(case, "lr=3") == 0


def test_mistakes_name_the_tracker(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (case / "half" / "B.txt").write_text("1,1,1\n")
    for words, message in (
        (["A=all", "A=half"], "two trackers are called 'A', all and half; name them"),
        (["x/y", "z/y"], "two trackers are called 'y'"),
        (["A=", "B=x"], "a path should follow A="),
        ([f"A={case / 'all'}", f"B={case / 'half'}"], "tracker B: "),
        ([f"A={case / 'all'}", f"B={case / 'nowhere'}"], "nowhere: no such file or folder"),
    ):
        assert call(case, *words) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert "tracker B: " in error
    # What is wrong with the ground truth is no tracker's fault.
    (case / "gt" / "A.txt").write_text("1,1,1\n")
    assert call(case, f"A={case / 'all'}", f"B={case / 'all'}") == 2
    assert not capsys.readouterr().err.startswith("error: tracker")
