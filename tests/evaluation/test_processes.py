"""Sequences in processes: the same results in the same order, and an error where a process dies."""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.evaluation.make_scalabel import make_scalabel
from tests.evaluation.make_tao import make_files, make_videos, write_files
from tests.evaluation.make_track_files import mot_videos, write_mot
from tests.evaluation.test_youtubevis import make_vis
from trackmill.jobs.evaluate import main
from trackmill.pipeline.evaluation import processes
from trackmill.pipeline.evaluation.processes import results_in_order
from trackmill.pipeline.evaluation.run import BENCHMARKS, evaluate
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.schemas.errors import JobError


def work(item: str) -> tuple[str, int]:
    """Done by a worker; the items say what happens."""
    if item in ("slow", "stuck"):
        time.sleep(0.3 if item == "slow" else 600)
    if item.startswith("bad"):
        raise BadTracks(f"{item}.txt: line 3: no number")
    if item == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return item, os.getpid()


def test_results_come_in_order_from_other_processes() -> None:
    items = ["slow", "a", "b", "c", "d"]
    found = list(results_in_order(work, items, items, 2))
    assert [item for item, _ in found] == items
    workers = {process for _, process in found}
    assert len(workers) == 2 and os.getpid() not in workers
    assert wait_until(lambda: not any(map(is_running, workers))), "workers end with the work"


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_script_that_asks_for_processes_is_not_run_again(tmp_path: Path) -> None:
    """Nor must it have `if __name__ == "__main__"`."""
    files = write_mot(tmp_path, mot_videos("mot17", count=2, num_frames=5, num_objects=8), "mot17")
    script = tmp_path / "script.py"
    script.write_text(
        f"print('begins')\nfrom trackmill import evaluate\n"
        f"print(evaluate({str(files.gt)!r}, {str(files.results)!r}, workers=2).metrics['GT'])\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=False)
    wanted = evaluate("mot17", str(files.gt), str(files.results)).metrics["GT"]
    assert (done.stdout.split(), done.stderr) == (["begins", str(wanted)], "")


def test_workers_end_when_the_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from tests.evaluation.test_processes import work\n"
        "from trackmill.pipeline.evaluation.processes import results_in_order\n"
        "items = ['a', 'b', 'stuck', 'stuck']\n"
        "for _, process in results_in_order(work, items, items, 2):\n    print(process, flush=True)\n"
    )
    path = os.pathsep.join(filter(None, sys.path))
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path})
    assert parent.stdout is not None
    workers = {int(parent.stdout.readline()) for _ in range(2)}
    parent.kill()
    parent.communicate()
    assert wait_until(lambda: not any(map(is_running, workers)))


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def test_the_first_mistake_in_order_is_told() -> None:
    """As in one process, though the second may be found first."""
    items = ["slow", "a", "bad1", "bad2"]
    for workers in (1, 2):
        with pytest.raises(BadTracks, match=r"^bad1\.txt: line 3: no number$"):
            list(results_in_order(work, items, items, workers))


def test_a_dead_worker_is_named_with_its_sequence() -> None:
    items = ["a", "killed", "b", "c"]
    with pytest.raises(
        JobError, match=r"MOT-killed: the process .* was killed by signal 9 \(out of memory\?\); --workers"
    ):
        list(results_in_order(work, items, [f"MOT-{item}" for item in items], 2))


def test_processes_are_started_only_where_that_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "free_processors", lambda: 2)
    items = ["a", "b", "slow", "c"]
    assert {process for _, process in results_in_order(work, items, items, None)} == {os.getpid()}
    # Where starting takes no time, the rest goes to workers, however little it is.
    monkeypatch.setattr(processes, "START_S", 0.0)
    found = list(results_in_order(work, items, items, None))
    assert [item for item, _ in found] == items
    assert found[0][1] == os.getpid() not in {process for _, process in found[1:]}
    monkeypatch.setattr(processes, "free_processors", lambda: 1)
    assert {process for _, process in results_in_order(work, items, items, None)} == {os.getpid()}


@pytest.mark.parametrize("benchmark", ["mot17", "tao", "bdd100k-mot", "bdd100k-mots", "youtubevis", "ovis"])
def test_what_goes_to_workers_and_back_can_be_sent(
    tmp_path: Path, benchmark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of a report is made of what comes back; no process is started here."""
    gt, results = written(tmp_path, benchmark)
    one = evaluate(benchmark, gt, results)
    sent: list[str] = []

    def through_pickle(function: Any, items: Sequence[Any], names: Sequence[str], workers: int | None) -> Any:
        for name, item in zip(names, items, strict=True):
            call, argument = pickle.loads(pickle.dumps((function, item)))
            sent.append(name)
            yield pickle.loads(pickle.dumps(call(argument)))

    module = importlib.import_module(f"trackmill.pipeline.evaluation.benchmarks.{BENCHMARKS[benchmark]}")
    monkeypatch.setattr(module, "results_in_order", through_pickle)
    two = evaluate(benchmark, gt, results)
    assert sent == list(one.sequences) and len(sent) > 1
    assert one.as_json() == two.as_json() and one.moments == two.moments


def written(folder: Path, benchmark: str) -> tuple[str, str]:
    """Ground truth and results of two or three videos."""
    if benchmark == "mot17":
        files = write_mot(folder, mot_videos("mot17", count=2, num_frames=15, num_objects=10), "mot17")
        return str(files.gt), str(files.results)
    if benchmark == "tao":
        return write_files(folder, *make_files(make_videos(3), 3))
    made = make_scalabel(1, masks=True) if benchmark.startswith("bdd") else make_vis()
    for name, content in zip(("gt", "results"), made, strict=True):
        (folder / f"{name}.json").write_bytes(orjson.dumps(content))
    return str(folder / "gt.json"), str(folder / "results.json")


def test_numbers_are_the_same_to_the_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Text and JSON, plots and moments included; progress is counted."""
    gt, results = write_files(tmp_path, *make_files(make_videos(3), 3))
    seen: list[tuple[int, int]] = []
    one = evaluate("tao", gt, results)
    two = evaluate("tao", gt, results, progress=lambda *counts: seen.append(counts), workers=2)
    assert one.as_json() == two.as_json() and one.moments == two.moments
    assert seen == [(1, 3), (2, 3), (3, 3)]
    files = write_mot(tmp_path / "mot", mot_videos("mot17", count=3, num_frames=20, num_objects=10), "mot17")
    words = ["--benchmark", "mot17", "--gt", str(files.gt), "--results", str(files.results), "--output"]
    for workers in ("1", "2"):
        assert main([*words, str(tmp_path / f"{workers}.json"), "--workers", workers]) == 0
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()
    (files.results / f"{files.names[1]}.txt").write_text("1,1,1\n")
    assert main([*words, str(tmp_path / "no.json"), "--workers", "2"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "line 1: 3 columns" in error
