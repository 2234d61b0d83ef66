"""Worst moments out of evaluations: of one tracker, of several, of other sequences, of none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trackmill.pipeline.view.moments import read_moments
from trackmill.schemas.errors import InputError


def moment(sequence: str, frame: int, switches: int = 1) -> dict[str, Any]:
    switched = [{"gt": place, "from": 1, "to": 2} for place in range(switches)]
    return {"sequence": sequence, "frame": frame, "class": "", "switches": switched}


def write(folder: Path, values: Any) -> str:
    file = folder / "evaluation.json"
    file.write_text(json.dumps(values))
    return str(file)


def report(*moments: dict[str, Any]) -> dict[str, Any]:
    return {"benchmark": "mot17", "sequences": {"A": {}, "B": {}}, "moments": list(moments)}


def test_those_of_several_trackers_are_named_the_worst_first(tmp_path: Path) -> None:
    trackers = {"one": report(moment("A", 4), moment("B", 5)), "two": report(moment("A", 7, 2), moment("A", 8))}
    found, why = read_moments(write(tmp_path, {"benchmark": "mot17", "trackers": trackers}), "A")
    assert [(each["frame"], each["said"]) for each in found] == [
        (8, "two: object 0: 1 becomes 2, object 1: 1 becomes 2"),
        (5, "one: object 0: 1 becomes 2"),
        (9, "two: object 0: 1 becomes 2"),
    ]
    assert why == ""


def test_moments_of_other_sequences_take_no_room(tmp_path: Path) -> None:
    found, _ = read_moments(write(tmp_path, report(*[moment("B", 1)] * 99, moment("A", 2))), "A")
    assert found == [{"frame": 3, "said": "object 0: 1 becomes 2"}]
    assert len(read_moments(write(tmp_path, report(*[moment("B", 1)] * 99)), "B")[0]) == 50


def test_where_there_are_none_it_says_why(tmp_path: Path) -> None:
    file = write(tmp_path, report(moment("B", 1)))
    assert read_moments(file, "A") == ([], "The evaluation lists no moment of A in which an identity switches.")
    assert read_moments(file, "C") == ([], "The evaluation is of A, B, and not of C.")
    many = {"moments": [], "sequences": {f"S{number}": {} for number in range(9)}}
    assert read_moments(write(tmp_path, many), "C")[1] == "The evaluation is of S0, S1, S2, S3, S4, ..., and not of C."


@pytest.mark.parametrize("values", [[], 3, {}, {"trackers": []}, {"trackers": {"a": 1}}, {"moments": [{"frame": 1}]}])
def test_what_is_no_evaluation(tmp_path: Path, values: Any) -> None:
    with pytest.raises(InputError, match="not what trackmill evaluate --output writes"):
        read_moments(write(tmp_path, values), "A")
