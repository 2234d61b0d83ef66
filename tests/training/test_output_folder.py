"""Where a run may write, and what people are told before it does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.training.tiny_runs import make_data, run_tiny, tiny_recipe
from trackmill.pipeline.training.dry_run import describe_run
from trackmill.pipeline.training.output_folder import check_output
from trackmill.pipeline.training.prepare import prepare_training
from trackmill.schemas.config import ConfigError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_data(tmp_path_factory.mktemp("data"))


def test_the_data_set_is_no_output(data: str) -> None:
    for spelt in (data, f"{data}/", f"{data}/../{Path(data).name}"):
        with pytest.raises(ConfigError, match="is the data set that --data names; give the run a folder of its own"):
            prepare_training(tiny_recipe(data), spelt, 1)
    with pytest.raises(ConfigError, match=r"is a data set; give the run a folder of its own"):
        check_output(data, "/elsewhere")


@pytest.mark.parametrize("name", ["A.mp4", "gt", "model.safetensors", "config.json"])
def test_a_folder_with_something_else_is_refused_by_its_names(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match=rf"{tmp_path} holds .*{name}.*; give the run a folder of its own"):
        check_output(str(tmp_path), "/data")


def test_an_empty_folder_one_with_logs_and_a_run_are_taken(data: str, tmp_path: Path) -> None:
    check_output(str(tmp_path / "new"), data)
    (tmp_path / "slurm-17.out").touch()
    (tmp_path / ".hidden").touch()
    check_output(str(tmp_path), data)
    run_tiny(data, tmp_path, max_steps=2)
    check_output(str(tmp_path), data)
    (tmp_path / "config.json").write_text(json.dumps({"task": "tiny"}))
    (tmp_path / "my notes").mkdir()
    check_output(str(tmp_path), data)


def test_more_steps_than_the_schedule_and_unfinished_mining_are_said(data: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def notes(**changes: int) -> list[str]:
        plan = prepare_training(tiny_recipe(mined, **changes), str(tmp_path / "out"), 1, build=False)
        return [line for line in describe_run(plan, 1) if line.startswith("note: ")]

    mined = make_data(tmp_path / "mined")
    assert notes() == []
    (said,) = notes(max_steps=100)
    assert "max_steps is 100, but the schedule ends after 48 steps" in said
    (tmp_path / "mined/plan").mkdir(exist_ok=True)
    for number, units in enumerate(([0, 0, 1], [1, 2, 3])):
        pq.write_table(pa.table({"unit": units}), tmp_path / f"mined/plan/{number}.parquet")
    (said,) = notes()
    done = len(list((tmp_path / "mined/receipts").iterdir()))
    assert f"{4 - done} of 4 units of {mined} are not mined yet, so only a part of the data" in said
