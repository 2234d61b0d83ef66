"""What `trackmill status` finds out of a training run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.training.tiny_runs import make_data, run_tiny, tiny_recipe
from trackmill.pipeline.status.lines import lines
from trackmill.pipeline.status.look import look
from trackmill.pipeline.storage.documents import publish_document
from trackmill.pipeline.training.recipe import stored_recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 of 48 steps are done; checkpoints of 16 and 24 are kept."""
    folder = tmp_path_factory.mktemp("run")
    data, output = make_data(folder / "data"), folder / "out"
    run_tiny(data, output, max_steps=24)
    publish_document(str(output / "config.json"), stored_recipe(tiny_recipe(data)))
    return output


def test_steps_numbers_and_checkpoints(run: Path) -> None:
    for step, time in ((16, 1000.0), (24, 1016.0)):
        os.utime(run / "checkpoints" / f"step-{step:08d}" / "checkpoint.json", (time, time))
    status = look(str(run))
    assert (status.kind, status.state, status.done, status.total) == ("training run", "stopped", 24, 48)
    assert [(each.step, each.wrong) for each in status.checkpoints] == [(24, ""), (16, "")]
    assert status.checkpoints[0].num_bytes > 1000
    assert status.pace.overall == pytest.approx(0.5)
    assert status.pace.recent is not None and status.pace.recent > 0
    assert {"loss", "lr", "grad_norm", "samples_per_s"} <= status.numbers.keys()
    assert status.next.startswith("trackmill train --recipe RECIPE --data ")
    printed = "\n".join(lines(status))
    assert "24 of 48 steps (50%); 24 steps left" in printed
    assert "checkpoint  step 24, written " in printed and "whole by its lengths" in printed


def test_a_checkpoint_that_is_cut_off(run: Path) -> None:
    model = run / "checkpoints" / "step-00000024" / "model.safetensors"
    whole = model.read_bytes()
    model.write_bytes(whole[:-8])
    try:
        status = look(str(run))
        assert status.checkpoints[0].wrong == f"model.safetensors has {len(whole) - 8:,} of {len(whole):,} bytes"
        assert not status.checkpoints[1].wrong
        assert any("8 steps since the last whole checkpoint are taken again" in note for note in status.notes)
        assert any("it is passed over" in note for note in status.notes)
    finally:
        model.write_bytes(whole)


def test_only_the_end_of_long_telemetry_is_read(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trackmill.pipeline.status import training_run

    monkeypatch.setattr(training_run, "_TAIL_BYTES", 700)
    assert look(str(run)).done == 24


def test_a_run_that_is_done(run: Path) -> None:
    # As a run of 24 steps in all: the result is there.
    publish_document(str(run / "config.json"), stored_recipe(tiny_recipe(str(run.parent / "data"), max_steps=24)))
    status = look(str(run))
    assert (status.state, status.left, status.exit_code(1)) == ("done", 0, 0)
    assert "final/model.safetensors" in status.next
