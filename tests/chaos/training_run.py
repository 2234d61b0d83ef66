"""One training run that is killed again and again, and then compared with the undisturbed one."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.chaos.job import Job
from tests.chaos.ledger import Ledger
from tests.chaos.processes import MARK, descendants, send, title
from tests.chaos.schedule import Event
from tests.chaos.slow_tiny import SLOW
from tests.runs import ROOT, job_environment
from tests.training.tiny_runs import MEASURED, TINY, make_data

EVERY = 5
"""Steps between two checkpoints."""
KEEP = 2
STEP_S = 0.04
GAP = (1, 7)
LOOK_S = 0.02
PATIENCE_S = 75.0
"""An event comes after so long even without a step: ranks may be killed while they start, but not each time."""
RESIGN_S = 150.0
SAVE_S = 20.0
"""A save is waited for so long."""
STALL_S = 420.0
QUICK_ENDS = 25
WEIGHTS = {
    "SIGKILL of a rank": 40.0,
    "SIGKILL of a rank during a save": 15.0,
    "SIGKILL of a loader worker": 30.0,
    "SIGKILL of the driver": 10.0,
    "SIGTERM of the driver": 5.0,
}
GOOD_CODES = {0, 1, 130} | {code for number in (9, 15) for code in (-number, 128 + number)}
"""Also of a rank that is killed while the driver ends."""


class Hung(Exception):
    """The run does not go on; the text says what is known."""


@dataclass(frozen=True, kw_only=True)
class Files:
    """Where things lie.

    Args:
        folder: of everything.
        mark: of the processes.
        recipe: path of it.
        data: root of the mined data set.
        steps: of a run.
    """

    folder: Path
    mark: str
    recipe: Path
    data: str
    steps: int

    @property
    def undisturbed(self) -> Path:
        """Root of the run that nothing happened to."""
        return self.folder / "undisturbed"

    def job(self, name: str, output: Path, kind: str) -> Job:
        """The command of a run."""
        words = ["--recipe", str(self.recipe), "--data", self.data, "--output", str(output), "--device", "cpu"]
        if kind == "ray":
            command = [sys.executable, "-m", "trackmill.jobs.train", *words, "--launcher", "ray", "--workers", "2"]
        else:
            command = [sys.executable, "-m", "tests.chaos.launcher", "2", *words, "--launcher", "local"]
        environment = job_environment(
            **{
                "OMP_NUM_THREADS": "1",
                "NO_ALBUMENTATIONS_UPDATE": "1",
                "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
                "CHAOS_STEP_S": str(STEP_S),
                "PYTHONPATH": str(ROOT),
                "TMPDIR": str(self.folder / "t"),
                MARK: self.mark,
            }
        )
        return Job(name, command, environment, self.folder / f"{name}.log")


def training_files(folder: Path, mark: str, steps: int) -> Files:
    """Make the data set and the recipe."""
    (folder / "t").mkdir()
    values = {
        **TINY,
        "task": SLOW,
        "data": {"batch_size": 4, "workers": 1},
        "schedule": {"steps": steps, "warmup_steps": 4, "milestones": [steps * 2 // 3]},
        "telemetry": {"every": 1, "tensorboard": False},
        "checkpoint": {"every": EVERY, "keep": KEEP},
        "ema": {"decay": 0.9},
        "ray": {"max_failures": -1},
    }
    lines = [f'task = "{values["task"]}"']
    for name, section in values.items():
        if name != "task":
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items())]
    recipe = folder / "tiny.toml"
    recipe.write_text("\n".join(lines))
    return Files(folder=folder, mark=mark, recipe=recipe, data=make_data(folder / "data"), steps=steps)


def train_undisturbed(files: Files) -> None:
    """Train without trouble.

    Raises:
        Hung: it failed.
    """
    job = files.job("undisturbed-run", files.undisturbed, "plain")
    job.start()
    assert job.process is not None
    if job.process.wait():
        raise Hung(f"the undisturbed run failed:\n{job.tail(40)}")


def rows(output: Path) -> list[dict]:
    """Rows of the steps without what was measured by a clock; a last line that is cut short is left out."""
    found = []
    path = output / "metrics.jsonl"
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        found.append({name: value for name, value in row.items() if name not in MEASURED})
    return found


def different(output: Path, undisturbed: Path) -> list[str]:
    """What of a finished run is not as in the undisturbed one."""
    found = []
    here, there = rows(output), rows(undisturbed)
    if [row["step"] for row in here] != [row["step"] for row in there]:
        found.append(f"metrics.jsonl has the steps {[row['step'] for row in here][:30]}...")
    elif here != there:
        first = next(row["step"] for row, other in zip(here, there) if row != other)
        found.append(f"step {first} gave other numbers")
    names = {str(path.relative_to(undisturbed)) for path in undisturbed.rglob("*") if path.is_file()}
    for name in sorted(name for name in names if name.endswith(".safetensors")):
        if not (output / name).exists():
            found.append(f"{name} is missing")
        elif (output / name).read_bytes() != (undisturbed / name).read_bytes():
            found.append(f"{name} has other bytes")
    extra = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()} - names
    found += [f"left behind: {name}" for name in sorted(extra)]
    return found


class TrainingRun:
    """See the module.

    Args:
        files: data and recipe.
        number: of the run.
        kind: `plain` or `ray`.
        ledger: of what is done.
        drawn: what happens.
        enough: whether nothing more shall happen; the run is still finished and compared.
    """

    def __init__(
        self,
        files: Files,
        number: int,
        kind: str,
        ledger: Ledger,
        drawn: Iterator[Event],
        enough: Callable[[], bool],
    ) -> None:
        self._files, self._kind, self._ledger, self._drawn, self._enough = files, kind, ledger, drawn, enough
        self.output = files.folder / f"out-{number:03d}"
        self._job = files.job(f"run-{number:03d}", self.output, kind)
        self._step = self._furthest = self._step_at_event = self._ends_in_a_row = 0
        self._event: Event | None = None
        self._event_at = self._moved_at = time.monotonic()

    def run(self) -> list[str]:
        """Train to the end; what is wrong with the result.

        Raises:
            Hung: it does not go on.
        """
        self._ledger.pause()
        self._job.start()
        try:
            while (code := self._job.ended()) != 0:
                if code is not None:
                    self._ended(code)
                self._follow()
                if not self._enough():
                    self._act()
                time.sleep(LOOK_S)
        finally:
            self._job.end()
        self._ledger.pause()
        found = different(self.output, self._files.undisturbed)
        if bugs := self._job.bugs():
            found.append(f"{bugs} bugs were met: {self._job.log}")
        return found

    def _ended(self, code: int) -> None:
        self._ends_in_a_row += 1
        if code not in GOOD_CODES or self._ends_in_a_row > QUICK_ENDS:
            raise Hung(f"the driver ended with {code}, {self._ends_in_a_row} times in a row:\n{self._job.tail(40)}")
        self._job.start()

    def _last_step(self) -> int:
        """Of the newest row."""
        try:
            with open(self.output / "metrics.jsonl", "rb") as handle:
                handle.seek(max(0, os.fstat(handle.fileno()).st_size - 4096))
                lines = [line for line in handle.read().split(b"\n")[:-1] if line.startswith(b"{")]
            return int(json.loads(lines[-1])["step"]) if lines else 0
        except (OSError, ValueError, KeyError):
            return self._step

    def _saved_step(self) -> int:
        """Of the newest whole checkpoint."""
        found = [
            int(path.parent.name.removeprefix("step-"))
            for path in self.output.glob("checkpoints/step-*/checkpoint.json")
        ]
        return max(found, default=0)

    def _follow(self) -> None:
        step = self._last_step()
        if step != self._step:
            self._step, self._moved_at = step, time.monotonic()
        if step > self._furthest:
            self._furthest, self._ends_in_a_row = step, 0
            self._ledger.moved()
        if time.monotonic() - self._moved_at > STALL_S:
            raise Hung(f"no step for {STALL_S:.0f} s after step {self._step}:\n{self._job.tail(40)}")

    # What happens to it

    def _act(self) -> None:
        if self._event is None:
            self._event, self._event_at, self._step_at_event = next(self._drawn), time.monotonic(), self._step
        waited = time.monotonic() - self._event_at
        moved = self._step - self._step_at_event
        if 0 <= moved < self._event.gap and waited < PATIENCE_S:
            return
        if self._happen(self._event) or waited > RESIGN_S:
            self._event = None

    def _happen(self, event: Event) -> bool:
        if event.kind == "SIGTERM of the driver":
            if self._job.process is None or not self._ranks() or not send(self._job.process.pid, signal.SIGTERM):
                return False
            self._ledger.done(event.kind)
            return True
        if event.kind == "SIGKILL of the driver":
            again = self._again()
            if not self._job.kill():
                return False
            self._ledger.done(event.kind, kills=1, again=again)
            return True
        victims = self._loaders() if "loader" in event.kind else self._ranks()
        if not victims:
            return False
        if "save" in event.kind and not self._wait_for_a_save():
            return False
        again = self._again()
        if not send(victims[event.choose(victims)].pid, signal.SIGKILL):
            return False
        self._ledger.done(event.kind, kills=1, again=again)
        return True

    def _again(self) -> int:
        return max(0, self._last_step() - self._saved_step())

    def _wait_for_a_save(self) -> bool:
        """Until a checkpoint is begun and not whole."""
        deadline = time.monotonic() + SAVE_S
        checkpoints = self.output / "checkpoints"
        while time.monotonic() < deadline and self._job.process is not None and self._job.process.poll() is None:
            try:
                names = os.listdir(checkpoints)
            except FileNotFoundError:
                names = []
            if any(not (checkpoints / name / "checkpoint.json").exists() for name in names if name.startswith("step-")):
                return True
        return False

    def _family(self) -> list[psutil.Process]:
        return descendants(self._job.process.pid) if self._job.process is not None else []

    def _ranks(self) -> list[psutil.Process]:
        """Processes that train: of the launcher its children, on Ray the workers of Ray Train."""
        if self._job.process is None:
            return []
        if self._kind == "ray":
            return [each for each in self._family() if title(each).startswith("ray::RayTrainWorker")]
        return [each for each in self._family() if _parent(each) == self._job.process.pid]

    def _loaders(self) -> list[psutil.Process]:
        """Processes that read samples for them, and the servers that those are forked from."""
        ranks = {each.pid for each in self._ranks()}
        below = [each for rank in sorted(ranks) for each in descendants(rank)]
        return [each for each in below if "forkserver" in title(each)]


def _parent(process: psutil.Process) -> int:
    try:
        return int(process.ppid())
    except psutil.Error:
        return 0
