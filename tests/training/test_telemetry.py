"""Telemetry: one line a step whatever was killed, event files that TensorBoard reads, sinks that may fail."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.runs import ROOT
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.training.telemetry import Telemetry, TelemetrySettings, require_packages
from trackmill.pipeline.training.telemetry import telemetry as telemetry_module
from trackmill.pipeline.training.telemetry.curves import write_curves
from trackmill.pipeline.training.telemetry.lines import JsonLines, read_lines
from trackmill.pipeline.training.telemetry.plot import as_line, draw
from trackmill.pipeline.training.telemetry.progress import TrainingProgress
from trackmill.pipeline.training.telemetry.sinks import Background
from trackmill.pipeline.training.telemetry.tags import tag
from trackmill.schemas.config import ConfigError, build

PLAIN = TelemetrySettings(tensorboard=False)


def row(step: int, **more: float) -> dict[str, float]:
    return {"step": step, "loss": 1 / step, "track": 0.5 / step, "lr": 0.01, "similarity_gap": 0.1 * step, **more}


def telemetry(output: str | Path, settings: TelemetrySettings = PLAIN, **more: Any) -> Telemetry:
    defaults: dict[str, Any] = {"total_steps": 100, "samples_per_step": 8, "stream": io.StringIO()}
    return Telemetry(settings, str(output), **(defaults | more))


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_one_line_a_step_after_a_kill(tmp_path: Path) -> None:
    with telemetry(tmp_path) as first:
        first.steps([row(step) for step in range(1, 8)])
        first.evaluation(4, {"rank1": 60.0})
        first.evaluation(7, {"rank1": 61.0})
    undisturbed = (tmp_path / "metrics.jsonl").read_bytes()

    # Killed at step 9 in the middle of a line, the last checkpoint being that of step 5.
    with (tmp_path / "metrics.jsonl").open("ab") as handle:
        handle.write(b'{"step":8,"loss":0.125}\n{"step":9,"lo')
    with telemetry(tmp_path, start_step=5) as second:
        second.steps([row(6), row(7)])
        second.evaluation(7, {"rank1": 62.0})
    assert (tmp_path / "metrics.jsonl").read_bytes() == undisturbed
    assert read_lines(str(tmp_path / "evaluations.jsonl")) == [{"step": 4, "rank1": 60}, {"step": 7, "rank1": 62}]


def test_the_old_process_does_not_write_into_the_new_file(tmp_path: Path) -> None:
    old = JsonLines(str(tmp_path / "x.jsonl"), keep_to=0)
    old.append([row(1)])
    new = JsonLines(str(tmp_path / "x.jsonl"), keep_to=1)
    old.append([row(2)])
    new.append([row(2, mine=1)])
    assert [line.get("mine") for line in read_lines(new.url)] == [None, 1]
    old.close()
    new.close()


def test_steps_must_follow_each_other(tmp_path: Path) -> None:
    recorder = telemetry(tmp_path)
    recorder.steps([row(1), row(2)])
    with pytest.raises(ValueError, match=r"metrics\.jsonl: step 2 after step 2"):
        recorder.steps([row(2)])


def test_steps_lost_before_a_resume_are_named(tmp_path: Path) -> None:
    stream = io.StringIO()
    telemetry(tmp_path, start_step=5, stream=stream).close()
    assert "metrics.jsonl ends at step 0, and training goes on after step 5" in stream.getvalue()


def test_numbers_that_json_does_not_have(tmp_path: Path) -> None:
    with telemetry(tmp_path) as recorder:
        recorder.steps([{"step": 1.0, "loss": math.nan, "grad_norm": math.inf, "lr": 0.1}])
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {
        "step": 1,
        "loss": None,
        "grad_norm": None,
        "lr": 0.1,
    }


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    with telemetry(tmp_path / "run", rank=1) as recorder:
        recorder.steps([row(1)])
        recorder.tick(1)
        recorder.evaluation(1, {"rank1": 1.0})
        recorder.event("x")
        recorder.sync()
    assert not (tmp_path / "run").exists()


def test_a_remote_output_is_whole_at_every_sync() -> None:
    output = "memory://telemetry/run"
    settings = TelemetrySettings(upload_s=1e6)
    first = telemetry(output, settings)
    first.steps([row(1), row(2)])
    assert not fsspec.filesystem("memory").exists("/telemetry/run/metrics.jsonl"), "not for every report"
    first.sync()
    first.steps([row(3)])  # then it is killed: these are lost, and so is the step

    second = telemetry(output, settings, start_step=2)
    second.steps([row(3), row(4)])
    second.close()
    assert [line["step"] for line in read_lines(f"{output}/metrics.jsonl")] == [1, 2, 3, 4]
    names = [info.uri for info in list_files(f"{output}/tensorboard")]
    assert names == [f"memory:///telemetry/run/tensorboard/events.out.tfevents.{n:010d}.trackmill" for n in (1, 2)]


def test_a_remote_output_is_uploaded_now_and_then() -> None:
    clock = Clock()
    lines = JsonLines("memory://telemetry/slow.jsonl", keep_to=0, upload_s=30, clock=clock)
    for step, clock.now in ((1, 10), (2, 31), (3, 32)):
        lines.append([row(step)])
    assert [line["step"] for line in read_lines(lines.url)] == [1, 2]
    lines.close()
    assert [line["step"] for line in read_lines(lines.url)] == [1, 2, 3]


def test_a_failed_upload_is_an_error_at_sync_only(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    lines = JsonLines("memory://telemetry/broken.jsonl", keep_to=0, upload_s=1, clock=clock)

    def broken(url: str, data: bytes) -> None:
        raise OSError("storage is gone")

    monkeypatch.setattr("trackmill.pipeline.training.telemetry.lines.publish_bytes", broken)
    clock.now = 2
    lines.append([row(1)])
    with pytest.raises(OSError, match="storage is gone"):
        lines.sync()
    monkeypatch.undo()
    lines.sync()
    assert [line["step"] for line in read_lines(lines.url)] == [1]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_reads_each_step_once_after_a_kill(tmp_path: Path) -> None:
    first = telemetry(tmp_path, TelemetrySettings())
    first.steps([row(step) for step in range(1, 9)])
    first.sync()
    file = next((tmp_path / "tensorboard").iterdir())
    file.write_bytes(file.read_bytes()[:-20])  # killed while it wrote step 8
    with telemetry(tmp_path, TelemetrySettings(), start_step=5) as second:
        second.steps([row(step, loss=100.0 + step) for step in range(6, 11)])
        second.evaluation(10, {"rank1": 61.5})
    found = scalars(tmp_path / "tensorboard")
    assert [step for step, _ in found["loss/total"]] == list(range(1, 11))
    assert [value for _, value in found["loss/total"]][5:] == [106, 107, 108, 109, 110]
    assert set(found) == {"loss/total", "loss/track", "optim/lr", "similarity/gap", "evaluation/rank1"}
    assert found["evaluation/rank1"] == [(10, 61.5)]


def test_tensorboard_after_a_kill_before_the_first_checkpoint(tmp_path: Path) -> None:
    for _ in range(2):
        recorder = telemetry(tmp_path, TelemetrySettings())
        recorder.steps([row(step) for step in range(1, 4)])
    assert [step for step, _ in scalars(tmp_path / "tensorboard")["loss/total"]] == [1, 2, 3]


def test_a_large_remote_event_file_is_continued_in_the_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from trackmill.pipeline.training.telemetry import tensorboard_sink

    monkeypatch.setattr(tensorboard_sink, "_MAX_BYTES", 1000)
    sink = tensorboard_sink.TensorBoardSink("memory://telemetry/large", 0, 1e6)
    for step in range(1, 61):
        sink.scalars([(step, {"loss/total": float(step)})])
        if step % 20 == 0:
            sink.sync()
    sink.close("finished")
    files = list_files("memory://telemetry/large")
    assert len(files) > 1
    for info in files:
        (tmp_path / Path(info.uri).name).write_bytes(read_bytes(info.uri))
    assert scalars(tmp_path)["loss/total"] == [(step, float(step)) for step in range(1, 61)]


class Broken:
    """A sink whose server goes away after the first report."""

    name = "Broken"

    def __init__(self) -> None:
        self.seen: list[int] = []

    def scalars(self, scalars: Any) -> None:
        if self.seen:
            raise ConnectionError("https://user:secret@host/api is gone")
        self.seen += [step for step, _ in scalars]

    def sync(self) -> None:
        pass

    def close(self, status: str) -> None:
        raise AssertionError("it was switched off")


def test_a_failing_sink_is_switched_off_once(tmp_path: Path) -> None:
    stream, broken = io.StringIO(), Broken()
    recorder = telemetry(tmp_path, stream=stream)
    recorder._sinks.append(broken)
    for step in range(1, 5):
        recorder.steps([row(step)])
    recorder.close()
    assert broken.seen == [1]
    said = "Broken is switched off for the rest of this run: ConnectionError: https://host/api is gone"
    assert stream.getvalue().count("switched off") == 1 and said in stream.getvalue()
    assert [event["text"] for event in read_lines(str(tmp_path / "events.jsonl"))] == [said]
    assert len(read_lines(str(tmp_path / "metrics.jsonl"))) == 4


def test_an_error_behind_the_thread_comes_back() -> None:
    behind = Background(Broken())
    behind.scalars([(1, {})])
    behind.scalars([(2, {})])
    behind._thread.join(60)
    with pytest.raises(ConnectionError):
        behind.scalars([(3, {})])


def test_a_sink_that_hangs_does_not_hold_up_the_end() -> None:
    import threading

    class Hanging(Broken):
        def scalars(self, scalars: Any) -> None:
            threading.Event().wait(300)

    behind = Background(Hanging(), close_s=0.2)
    behind.scalars([(1, {})])
    with pytest.raises(TimeoutError, match="not done within"):
        behind.close("finished")


def test_a_sink_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for settings, extra in (
        (TelemetrySettings(), "train"),
        (TelemetrySettings(tensorboard=False, mlflow="http://host"), "mlflow"),
        (TelemetrySettings(tensorboard=False, wandb="project"), "wandb"),
    ):
        with pytest.raises(ImportError, match=re.escape(f'pip install -e ".[{extra}]"')):
            telemetry(tmp_path / extra, settings)
    require_packages(PLAIN)
    assert not list(tmp_path.iterdir()), "nothing was written before the check"


def test_no_password_in_the_settings() -> None:
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        build(TelemetrySettings, {"mlflow": "https://me:hidden@host"}, "recipe")
    assert "hidden" not in str(caught.value)


def test_mlflow_continues_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    from mlflow.tracking import MlflowClient

    store = (tmp_path / "mlruns").as_uri()
    settings = TelemetrySettings(tensorboard=False, mlflow=store, run_name="night")
    config = {"optim": {"lr": 0.02}, "data": {"url": "https://me:hidden@host/x"}}
    first = telemetry(tmp_path / "run", settings, config=config)
    first.steps([row(step) for step in range(1, 8)])
    first.close()
    second = telemetry(tmp_path / "run", settings, start_step=5, total_steps=10, config=config)
    second.steps([row(step) for step in range(6, 11)])
    second.evaluation(10, {"rank-1 @ 0.5": 61.5, "mAP": math.nan})
    second.close()

    client = MlflowClient(tracking_uri=store)
    runs = client.search_runs([client.get_experiment_by_name("trackmill").experiment_id])
    assert len(runs) == 1 and runs[0].info.run_name == "night" and runs[0].info.status == "FINISHED"
    history = client.get_metric_history(runs[0].info.run_id, "loss/total")
    assert [(metric.step, metric.value) for metric in history] == [(step, 1 / step) for step in range(1, 11)]
    assert runs[0].data.metrics["evaluation/rank-1 _ 0.5"] == 61.5
    assert runs[0].data.params["optim.lr"] == "0.02" and "hidden" not in runs[0].data.params["data.url"]


def test_mlflow_that_cannot_be_reached_is_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    stream = io.StringIO()
    settings = TelemetrySettings(tensorboard=False, mlflow="http://127.0.0.1:9")  # the discard port: nobody listens
    with telemetry(tmp_path, settings, stream=stream) as recorder:
        recorder.steps([row(1)])
    assert "mlflow is switched off" in stream.getvalue()
    assert len(read_lines(str(tmp_path / "metrics.jsonl"))) == 1


def test_wandb_without_a_login_asks_nobody_and_keeps_the_run(tmp_path: Path) -> None:
    """On a terminal, where it would ask for a key and wait."""
    script = (
        "import sys\n"
        "from trackmill.pipeline.training.telemetry import Telemetry, TelemetrySettings\n"
        "settings = TelemetrySettings(tensorboard=False, wandb='trackmill')\n"
        "with Telemetry(settings, sys.argv[1], total_steps=1, samples_per_step=4) as telemetry:\n"
        "    telemetry.steps([{'step': 1, 'loss': 0.5}])\n"
    )
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc"), "WANDB_ERROR_REPORTING": "false"}
    environment |= {"WANDB_CACHE_DIR": str(tmp_path / "cache"), "WANDB_CONFIG_DIR": str(tmp_path / "config")}
    output = tmp_path / "run"
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(output)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment | {"PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
        )
        os.close(theirs)
        threading.Thread(target=_drain, args=(ours,), daemon=True).start()
        assert process.wait(timeout=240) == 0
    finally:
        process.kill()
    (told,) = [each["text"] for each in read_lines(str(output / "events.jsonl"))]
    assert "nobody is logged in here" in told and f"kept in {output}/wandb" in told
    assert list((output / "wandb").glob("offline-run-*/*.wandb"))


def _drain(terminal: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(terminal, 4096):
            pass


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_DIR", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    stream = io.StringIO()
    settings = TelemetrySettings(tensorboard=False, wandb="trackmill", run_name="night")
    output = tmp_path / "run"
    for start, end in ((0, 7), (5, 10)):
        with telemetry(output, settings, start_step=start, stream=stream) as recorder:
            recorder.steps([row(step) for step in range(start + 1, end + 1)])
    assert "switched off" not in stream.getvalue()
    name = json.loads((output / "telemetry.json").read_text())["wandb"]
    files = sorted((output / "wandb").glob("offline-run-*/*.wandb"))
    assert files and {path.name for path in files} == {f"run-{name}.wandb"}, "the same run again"
    written = b"".join(path.read_bytes() for path in files)
    assert b"similarity/gap" in written and b"night" in written


def test_progress_in_a_log_and_on_a_terminal() -> None:
    clock = Clock()
    log, terminal = io.StringIO(), Terminal()
    both = [TrainingProgress(1000, 100, 8, stream=stream, clock=clock) for stream in (log, terminal)]
    for step in range(101, 141):
        clock.now = 30.0 + (step - 101) * 0.5  # the first step took half a minute
        for progress in both:
            progress.row({"step": step, "loss": 2.5, "data_wait": 0.031})
    lines = log.getvalue().splitlines()
    assert len(lines) == 2, "at the first step and 10 s later"
    assert lines[-1] == ("train: step 121/1,000 (12%), loss 2.5, 16.0 samples/s, 3% waiting for data, ETA 7 min 20 s")
    assert "\x1b" not in log.getvalue() and terminal.getvalue().count("\r\x1b[K") == 40
    both[1].say("a checkpoint was saved")
    both[1].close()
    assert (
        terminal.getvalue().endswith("ETA 7 min 10 s\n") and "\r\x1b[Ka checkpoint was saved\n" in terminal.getvalue()
    )


def test_progress_moves_where_steps_are_slow() -> None:
    clock, log = Clock(), io.StringIO()
    progress = TrainingProgress(10, 0, 4, stream=log, clock=clock)
    for step in (1, 2, 3):
        clock.now = step * 20.0
        progress.tick(step)
    assert log.getvalue().splitlines()[-1] == "train: step 3/10 (30%), 0.2 samples/s, ETA 2 min 20 s"


def test_how_a_run_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ends(Broken):
        def __init__(self) -> None:
            self.status: list[str] = []

        def scalars(self, scalars: Any) -> None:
            pass

        def close(self, status: str) -> None:
            self.status.append(status)

    ends = Ends()
    for number, (steps, error) in enumerate(((2, None), (1, None), (1, ValueError("bad")), (1, KeyboardInterrupt()))):
        recorder = telemetry(tmp_path / str(number), total_steps=2)
        recorder._sinks.append(ends)
        try:
            with recorder:
                recorder.steps([row(step) for step in range(1, steps + 1)])
                if error:
                    raise error
        except BaseException as raised:
            assert raised is error
    assert ends.status == ["finished", "stopped", "failed", "stopped"]
    assert read_lines(str(tmp_path / "2" / "events.jsonl"))[-1]["text"] == "failed: ValueError: bad"


def test_the_page_of_curves(tmp_path: Path) -> None:
    with telemetry(tmp_path / "a<b>", total_steps=1000) as recorder:
        for step in range(1, 1001):
            recorder.steps(
                [row(step, effective_negatives=3.0, data_wait=0.25, loss=math.nan if step == 500 else 1 / step)]
            )
        recorder.evaluation(500, {"rank1": 60.0})
        recorder.evaluation(1000, {"rank1": 64.25})
    write_curves(str(tmp_path / "a<b>"), str(tmp_path / "curves.html"))
    page = (tmp_path / "curves.html").read_text()
    assert "<h1>a&lt;b&gt;</h1>" in page and "http" not in page.replace("http-equiv", "")
    told_of = re.findall(r'aria-label="([^"]*)"', page)
    assert "rank1 over the steps, 64.2 at the end" in told_of
    assert "learning rate over the steps, 0.01 at the end" in told_of
    assert "Parts of the loss: track" in told_of
    assert page.count("<circle") == 2 and "25.0%" in page


def test_what_queries_do_is_no_part_of_the_loss(tmp_path: Path) -> None:
    numbers = {"tracker": 9.0, "focal": 0.5, "duplicates": 30.0, "positives_detect": 40.0, "positives_track": 20.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 9.0, **numbers}) + "\n")
    write_curves(str(tmp_path), str(tmp_path / "curves.html"))
    page = (tmp_path / "curves.html").read_text()
    told_of = re.findall(r'aria-label="([^"]*)"', page)
    assert "Parts of the loss: tracker, focal" in told_of and "the others are without their weights" in page
    assert "people that queries learn: positives detect, positives track" in told_of
    assert "queries that go wrong: duplicates" in told_of
    assert tag("duplicates") == "queries/duplicates" and tag("i2t") == "trackbook/i2t"


def test_curves_of_a_run_without_steps(tmp_path: Path) -> None:
    telemetry(tmp_path).close()
    write_curves(str(tmp_path), str(tmp_path / "curves.html"))
    assert "No step is done yet." in (tmp_path / "curves.html").read_text()
    with pytest.raises(FileNotFoundError):
        write_curves(str(tmp_path / "nothing"), str(tmp_path / "curves.html"))


def test_a_plot_shows_what_is_there() -> None:
    line = as_line([1, 2, 3, 4, 5, 6], [1.0, 2.0, None, 4.0, 4.0, 10.0])
    drawn = draw({"x": line}, "x")
    places = [
        [tuple(map(float, point.split(","))) for point in points.split()]
        for points in re.findall(r'<polyline class="line line-0" points="([^"]*)"', drawn)
    ]
    assert [len(run) for run in places] == [2, 3], "a gap where there is no number"
    (x0, y0), (x1, y1) = places[0]
    assert x1 > x0 and y1 < y0, "larger is higher"
    assert places[1][0][1] == places[1][1][1] and places[1][2][1] == 8, "10 is the highest tick, at the top"


@pytest.mark.parametrize("values", [[0.0], [5.0, 5.0], [-3e-9, 2e-9], [1e12, 1e12 + 1], [float("nan")], []])
def test_any_values_can_be_drawn(values: list[float]) -> None:
    drawn = draw({"x": as_line(list(range(len(values))), values)}, "x", marks=True)
    assert drawn.startswith("<svg") and "nan" not in drawn and "inf" not in drawn


def test_long_lines_keep_their_extremes() -> None:
    values = [0.0] * 10_000
    values[7_777] = 40.0
    drawn = draw({"x": as_line(list(range(10_000)), values)}, "x")
    band = re.search(r'<polygon class="band line-0" points="([^"]*)"', drawn)
    assert band and min(float(point.split(",")[1]) for point in band.group(1).split()) == 8, "up to the top"
    assert len(drawn) < 40_000


def test_telemetry_module_imports_no_sink() -> None:

    code = (
        f"import sys, {telemetry_module.__name__}; "
        "print({'torch', 'mlflow', 'wandb', 'tensorboard'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert result.stdout.strip() == "set()"
