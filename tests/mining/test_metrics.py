"""What mining tells Prometheus: units added up, workers by what they do, what is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.make_media import make_pictures
from tests.metrics.test_recorder import read
from trackmill.jobs.main import main
from trackmill.pipeline.metrics.definitions import MINING
from trackmill.pipeline.metrics.prometheus import PrometheusMetrics
from trackmill.pipeline.metrics.recorder import Recorder
from trackmill.pipeline.mining.metrics import MiningMetrics
from trackmill.pipeline.mining.unit import UnitResult
from trackmill.pipeline.workers.task import Status


def unit_result(unit: int, quarantined: int) -> UnitResult:
    return UnitResult(
        unit=unit,
        items=4,
        frames=10,
        proposals=9,
        statuses={"ok": 3, "quarantined": quarantined, "skipped": 0},
        quarantined=[("id", "Torn", "why")][:quarantined],
        num_bytes=512 * unit,
        seconds=1.5,
    )


def test_units_add_up(tmp_path: Path) -> None:
    file = tmp_path / "x.prom"
    clock = iter(range(100, 10_000))
    recorder = Recorder("out", [PrometheusMetrics(0, "", str(file), write_s=3600)], clock=lambda: next(clock))
    metrics = MiningMetrics(recorder, str(tmp_path), fingerprint="f" * 16, proposer="graph", units=5, done=1)
    states = {"a": Status(unit=3, stage="proposing"), "b": Status(stage="waiting for a free CPU")}
    metrics.tick(states, items=1, frames=2)
    metrics.unit_done(unit_result(0, quarantined=0))
    metrics.unit_done(unit_result(1, quarantined=3))
    metrics.worker_died()
    metrics.tick(states, items=1, frames=2)
    recorder._each(lambda back_end: back_end._write())  # type: ignore[attr-defined]
    while_it_runs = read(file.read_text())
    assert while_it_runs["trackmill_mining_workers", "out", "working"] == 1
    assert while_it_runs["trackmill_mining_workers", "out", "starting"] == 1
    assert while_it_runs["trackmill_mining_running", "out"] == 1
    metrics.close()
    found = read(file.read_text())
    assert found["trackmill_mining_items_total", "out", "ok"] == 6
    assert found["trackmill_mining_items_total", "out", "quarantined"] == 3
    assert ("trackmill_mining_items_total", "out", "skipped") not in found
    assert found["trackmill_mining_quarantined_total", "Torn", "out"] == 1
    assert found["trackmill_mining_quarantined_total", "other", "out"] == 2
    assert found["trackmill_mining_frames_total", "out"] == 20
    assert found["trackmill_mining_proposals_total", "out"] == 18
    assert found["trackmill_mining_bytes_total", "out"] == 512
    assert found["trackmill_mining_units_total", "out"] == 2
    assert found["trackmill_mining_unit_seconds_total", "out"] == 3
    assert found["trackmill_mining_worker_deaths_total", "out"] == 1
    assert found["trackmill_mining_units_done", "out"] == 3
    assert found["trackmill_mining_units_left", "out"] == 2
    assert found["trackmill_mining_running", "out"] == 0
    sign = found["trackmill_mining_last_sign_timestamp_seconds", "out"]
    assert found["trackmill_mining_last_progress_timestamp_seconds", "out"] < sign, "the last tick brought no item"


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], float]:
    """What a real run leaves in the file: five pictures, of which one is torn."""
    folder = tmp_path_factory.mktemp("mined")
    make_pictures(folder / "in", count=4)
    (folder / "in" / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    words = ["mine", "--input", str(folder / "in"), "--output", str(folder / "out"), "--executor", "inline"]
    assert main([*words, "--set", f"run.metrics_file={folder}/mine.prom", "--set", "shards.unit_frames=2"]) == 0
    return read((folder / "mine.prom").read_text())


def test_a_real_run_tells_all_that_is_defined(mined: dict[tuple[str, ...], float]) -> None:
    names = {key[0] for key in mined}
    only_sometimes = {"trackmill_mining_worker_deaths_total", "trackmill_mining_worker_seconds_total"}
    assert names >= {metric.name for metric in MINING} - only_sometimes
    assert mined["trackmill_mining_items_total", "out", "ok"] == 4
    assert mined["trackmill_mining_items_total", "out", "quarantined"] == 1
    assert mined["trackmill_mining_units_left", "out"] == 0
    assert mined["trackmill_mining_units_done", "out"] == mined["trackmill_mining_units_total", "out"] > 1
    assert mined["trackmill_mining_running", "out"] == 0
    free, size = (mined[f"trackmill_mining_output_{what}_bytes", "out"] for what in ("free", "size"))
    assert 0 < free < size
