"""One part in one process: what is left out, who is blamed, what is told; and what a pool makes of it without Ray."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest

from tests.make_dataset import make_dataset
from trackmill.pipeline.shards.reader import open_dataset
from trackmill.pipeline.sidecars.part_work import PartUnit
from trackmill.pipeline.sidecars.prepare import Making, prepare_sidecar
from trackmill.pipeline.sidecars.producer import BadRows
from trackmill.pipeline.sidecars.progress import SidecarProgress
from trackmill.pipeline.sidecars.requests import request_sidecar
from trackmill.pipeline.sidecars.run import forecast_sidecar, make_parts
from trackmill.pipeline.sidecars.settings import SidecarRunSettings, with_run
from trackmill.pipeline.sidecars.worker import PartWorker
from trackmill.pipeline.workers.decisions import Decisions
from trackmill.pipeline.workers.inflight import InFlight, peek_note
from trackmill.pipeline.workers.prices import Prices
from trackmill.pipeline.workers.task import StorageFailed
from trackmill.schemas.config import Settings
from trackmill.schemas.errors import InputError

PRODUCER = "tests.sidecars.producers:Brightness"


def making(root: str, **run: object) -> Making:
    settings = SidecarRunSettings(executor="inline", **run)  # type: ignore[arg-type]
    return prepare_sidecar(root, request_sidecar("b", PRODUCER, {}), settings)


def test_the_items_of_a_part_are_the_samples_of_its_shards_in_their_order(tmp_path: Path) -> None:
    root = make_dataset(str(tmp_path / "set")).root
    made, stored = making(root), open_dataset(root).stored
    assert [unit.title for unit in made.todo] == ["part-00000000.parquet", "part-00000001.parquet"]
    assert [item.key for unit in made.todo for item in unit.items] == [row.key for row in stored]
    assert [unit.frames for unit in made.todo] == [4, 10] and (made.samples, made.frames) == (5, 14)


def test_a_poisoned_sample_is_not_touched_and_its_part_is_made(tmp_path: Path) -> None:
    root = make_dataset(str(tmp_path / "set")).root
    made = making(root)
    worker = PartWorker(made.work)
    task = dataclasses.replace(made.todo[0], poisoned={1: "it hung", 2: "it killed"}, overdue=frozenset({1}))
    result = worker.run_unit(task)
    keys = [item.key for item in task.items]
    assert result.quarantined == [(keys[1], "TimeLimit", "it hung"), (keys[2], "WorkerDied", "it killed")]
    assert (result.samples, result.num_quarantined, result.failed) == (4, 2, "")
    assert worker.status.items_done == 4 and peek_note(worker.note.path) == ()
    worker.close()
    assert not Path(worker.note.path).exists()


def test_who_hangs_or_kills_is_named_with_its_part(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    units = making(make_dataset(str(tmp_path / "set")).root).todo
    decisions = Decisions(units, 1, 0, (BadRows,))
    (worker,) = decisions.orders().start
    decisions.started(worker, "w")
    ((worker, task),) = decisions.orders().give
    decisions.died(worker, RuntimeError("gone"), (InFlight(task.unit, frozenset({2}), overdue=2),))
    assert f"{units[0].items[2].key}: making its rows takes longer than `run.item_timeout_s` allows" in caplog.text
    assert "part-00000000.parquet is done again" in caplog.text
    (worker,) = decisions.orders().start
    decisions.started(worker, "w")
    ((worker, again),) = decisions.orders().give
    assert isinstance(again, PartUnit) and again.part == units[0].part and again.overdue == {2}
    with pytest.raises(BadRows, match="once is enough"):
        decisions.failed(worker, BadRows("once is enough"))


def test_a_part_that_cannot_be_written_is_no_samples_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = making(make_dataset(str(tmp_path / "set")).root)

    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trackmill.pipeline.sidecars.worker.publish_part", full)
    worker = PartWorker(made.work)
    with pytest.raises(StorageFailed, match=r"sidecars/b/part-00000000\.parquet: cannot be made: .*No space left"):
        worker.run_unit(made.todo[0])
    assert peek_note(worker.note.path) == ()
    worker.close()


def test_a_forecast_times_a_few_samples_and_writes_nothing(tmp_path: Path) -> None:
    root = make_dataset(str(tmp_path / "set")).root
    request = request_sidecar("b", PRODUCER, {})
    made = prepare_sidecar(root, request, SidecarRunSettings(executor="inline"), store=False)
    forecast = forecast_sidecar(made, Prices(gpu=2.0))
    assert (forecast.items, forecast.frames, forecast.units, forecast.failed) == (5, 14, 2, 0)
    assert 0 < forecast.num_bytes < 100_000 and forecast.seconds > 0 and forecast.price is None
    assert forecast.lines()[0] == "plan       5 samples, 14 frames, 2 units"
    assert not Path(root, "sidecars").exists()


def test_progress_counts_samples_and_frames_also_of_earlier_runs(tmp_path: Path) -> None:
    root = make_dataset(str(tmp_path / "set")).root
    make_parts(making(root))
    Path(root, "sidecars", "b", "part-00000001.parquet").unlink()
    made, stream = making(root, progress_s=1e-6), io.StringIO()
    progress = SidecarProgress(made, stream)
    assert progress.line() == "4/5 samples (29%), 1 left, starting, 0 quarantined"
    outcome = make_parts(made, progress.part_done)
    assert (outcome.done_before, len(outcome.made)) == (1, 1)
    assert progress.line().startswith("5/5 samples (100%), 0 left, ")
    assert "making b: 5/5 samples" in stream.getvalue()


def test_how_a_sidecar_is_made_is_no_setting_of_its_producer() -> None:
    class Own(Settings):
        run: int = 3

    with pytest.raises(InputError, match="`run` is how a sidecar is made"):
        with_run(Own)
    assert list(with_run(Settings).model_fields) == ["run"]
