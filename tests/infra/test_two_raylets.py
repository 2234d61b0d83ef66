"""The commands of the manifests on a real Ray cluster of two raylets with a token: see `two_raylets.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.infra.manifests import one
from tests.infra.two_raylets import WEEKS, demonstrate, localised, mining
from tests.runs import mine, tars
from tests.training.tiny_runs import result, rows, run_tiny


def test_a_command_line_becomes_one_of_this_machine(tmp_path: Path) -> None:
    words = mining(tmp_path / "in", tmp_path / "out")
    assert words[1:3] == ["jobs/mine_proposals.py", "--input"] and str(tmp_path / "in") in words
    assert "run.gpus_per_actor=0" in words and "--weights" not in words
    with pytest.raises(AssertionError, match="--nothing"):
        localised(one("RayJob", "trackmill-mine")["spec"]["entrypoint"], {"--nothing": "x"})


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_scheduled_training_and_mining_on_two_raylets(tmp_path: Path) -> None:
    said = {name: (code, printed) for name, code, printed in demonstrate(tmp_path)}
    assert said["a stranger's job"][0] != 0 and "let in" not in said["a stranger's job"][1]
    mined, again = said["mining"], said["mining again"]
    assert mined[0] == 0 and "units done now" in mined[1], mined[1]
    assert again[0] == 0 and "nothing was left to do" in again[1], again[1]
    alone = tmp_path / "alone"
    mine("--input", tmp_path / "sa1b", "--output", alone, "--source", "sa1b", "--executor", "inline")
    assert tars(tmp_path / "mined") == tars(alone)

    first, same, second = (said[f"training of {name}"] for name in (WEEKS[0], f"{WEEKS[0]} again", WEEKS[1]))
    assert first[0] == 0 and "starts at step 0" in first[1], first[1]
    assert same[0] == 0 and "nothing is left to do" in same[1], same[1]
    assert second[0] == 0 and "starts at step 0" in second[1], second[1]
    runs = [tmp_path / "schedule" / "runs" / week for week in WEEKS]
    assert result(runs[0]) == result(runs[1])
    run_tiny(str(tmp_path / "data"), tmp_path / "one-rank")
    keys = [row["keys"] for row in rows(tmp_path / "one-rank")]
    assert [row["keys"] for row in rows(runs[0])] == pytest.approx(keys), "the samples of a run on one rank"
