"""A Slurm of one machine: `sbatch`, `srun` and `scontrol` as small programs, put first in PATH.

`sbatch` runs a script to its end, as Slurm runs it: a copy of it, in bash, with the variables that the scripts here
read; each task of an array in a process of its own, all at once; nodes are 127.0.0.1, 127.0.0.2, ... A job that asked
for `scontrol requeue` runs again, with the same number. It refuses options that it does not know, so that a misspelt
one is found. When the file `FAKE_SLURM_TERM` is written, each batch shell gets the signal that its script asked for;
`scontrol show job` then says what the file holds, such as `JobState=COMPLETING`. When `FAKE_SLURM_PREEMPT` is written,
the tasks of srun get SIGTERM and the shell does not, as in preemption with a time of grace.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SBATCH = {
    *("array", "job-name", "nodes", "ntasks", "ntasks-per-node", "cpus-per-task", "gpus-per-task", "gpus-per-node"),
    *("mem", "time", "output", "open-mode", "requeue", "signal"),
}
SRUN = {"nodes", "ntasks", "nodelist", "overlap", "kill-on-bad-exit"}
_RUNS = 5
"""A job that goes back into the queue more often is caught in a circle."""


def install(folder: Path) -> dict[str, str]:
    """Put the programs into a folder; returns the environment in which they are found."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("sbatch", "srun", "scontrol"):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(__file__)} {name} "$@"\n')
        program.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def options(words: list[str], known: set[str]) -> tuple[dict[str, str], list[str]]:
    """Options in the form `--name=value` or `--flag`, and what follows them."""
    found = {}
    while words and words[0].startswith("--"):
        name, _, value = words.pop(0)[2:].partition("=")
        if name not in known:
            sys.exit(f"fake Slurm: unknown option --{name}")
        found[name] = value
    return found, words


def sbatch(words: list[str]) -> int:
    """Run a script to its end; returns the worst exit code of its tasks."""
    given, words = options(words, SBATCH)
    script = Path(words[0])
    asked: dict[str, str] = {}
    for line in re.findall(r"^#SBATCH (.*)$", script.read_text(), re.MULTILINE):
        asked |= options([line], SBATCH)[0]
    asked |= given
    number = os.getpid()
    print(f"Submitted batch job {number}", flush=True)
    spool = Path(tempfile.mkdtemp(prefix="fake-slurm-"))
    copied = spool / "slurm_script"  # nothing lies beside it, as in Slurm's spool
    copied.write_text(script.read_text())
    nodes = int(asked.get("nodes", "1"))
    shared = {
        "SLURM_JOB_ID": str(number),
        "SLURM_SUBMIT_DIR": os.getcwd(),
        "SLURM_NNODES": str(nodes),
        "SLURM_JOB_NODELIST": f"127.0.0.[1-{nodes}]" if nodes > 1 else "127.0.0.1",
        "SLURM_CPUS_PER_TASK": asked.get("cpus-per-task", "1"),
        "FAKE_SLURM_SPOOL": str(spool),
    }
    tasks = array(asked.get("array", ""))
    jobs = []
    for task in tasks or [None]:
        own = dict(shared)
        if task is not None:
            own |= {
                "SLURM_JOB_ID": str(number + 1 + task),
                "SLURM_ARRAY_JOB_ID": str(number),
                "SLURM_ARRAY_TASK_ID": str(task),
                "SLURM_ARRAY_TASK_COUNT": str(len(tasks)),
                "SLURM_ARRAY_TASK_MIN": str(min(tasks)),
                "SLURM_ARRAY_TASK_MAX": str(max(tasks)),
                "SLURM_ARRAY_TASK_STEP": str(tasks[1] - tasks[0] if len(tasks) > 1 else 1),
            }
        name = f"{number}_{task}" if task is not None else str(number)
        jobs.append((name, ["bash", str(copied), *words[1:]], own))
    try:
        return max(watch(jobs, asked, spool))
    finally:
        shutil.rmtree(spool, ignore_errors=True)


def array(text: str) -> list[int]:
    """Numbers of `--array=1-6:2` or `1,4`; `%N` is left out of account."""
    numbers = []
    for part in filter(None, text.partition("%")[0].split(",")):
        match = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if match is None:
            sys.exit(f"fake Slurm: --array={text}")
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        numbers += range(first, last + 1, step)
    return numbers


def watch(jobs: list[tuple[str, list[str], dict[str, str]]], asked: dict[str, str], spool: Path) -> list[int]:
    """Run all at once; signal their shells when told to; again those that asked for it."""
    notice = Path(os.environ.get("FAKE_SLURM_TERM", "/nowhere"))
    running = {name: subprocess.Popen(command, env={**os.environ, **own}) for name, command, own in jobs}
    restarts = dict.fromkeys(running, 0)
    codes = {}
    signalled = False
    while running:
        if notice.exists() and not signalled:
            signalled = True
            wanted = re.fullmatch(r"(B:)?(\w+)@\d+", asked["signal"])
            assert wanted is not None and wanted[1], "scripts here want the signal for their shell alone"
            for process in running.values():
                process.send_signal(signal.Signals[f"SIG{wanted[2]}"])
        for name, command, own in jobs:
            if name in running and (code := running[name].poll()) is not None:
                del running[name]
                codes[name] = code
                if (spool / f"requeue-{name}").exists():
                    (spool / f"requeue-{name}").unlink()
                    restarts[name] += 1
                    assert restarts[name] < _RUNS, f"{name} goes round in a circle"
                    print(f"fake Slurm: {name} runs again after exit code {code}", flush=True)
                    own = {**own, "SLURM_RESTART_COUNT": str(restarts[name])}
                    running[name] = subprocess.Popen(command, env={**os.environ, **own})
        time.sleep(0.05)
    return list(codes.values())


def srun(words: list[str]) -> int:
    """Run a command as a task on each node, passing signals on; returns the worst exit code."""
    asked, command = options(words, SRUN)
    nodes = [asked["nodelist"]] if "nodelist" in asked else hostnames(os.environ["SLURM_JOB_NODELIST"])
    tasks = []
    for number, node in enumerate(nodes):
        own = {"SLURM_PROCID": str(number), "SLURM_NODEID": str(number), "SLURMD_NODENAME": node}
        tasks.append(subprocess.Popen(command, env={**os.environ, **own}))

    def pass_on(number: int, frame: object) -> None:
        for task in tasks:
            if task.poll() is None:
                task.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    codes: list[int] = []
    preempted = Path(os.environ.get("FAKE_SLURM_PREEMPT", "/nowhere"))
    signalled = preempted.exists() and "SLURM_RESTART_COUNT" in os.environ
    while len(codes) < len(tasks):
        if preempted.exists() and not signalled:
            signalled = True
            pass_on(signal.SIGTERM, None)
        codes = [code for code in (task.poll() for task in tasks) if code is not None]
        if "kill-on-bad-exit" in asked and any(codes):
            time.sleep(5)
            pass_on(signal.SIGKILL, None)
        time.sleep(0.05)
    return max(128 - code if code < 0 else code for code in codes)


def hostnames(text: str) -> list[str]:
    """Those of `127.0.0.[1-3]` or of one name."""
    match = re.fullmatch(r"(.*)\[(\d+)-(\d+)\]", text)
    return [f"{match[1]}{number}" for number in range(int(match[2]), int(match[3]) + 1)] if match else [text]


def scontrol(words: list[str]) -> int:
    """`show hostnames LIST`, `--oneliner show job JOB`, `requeue JOB`."""
    if words[:3] == ["--oneliner", "show", "job"] and len(words) == 4:
        notice, preempted = (Path(os.environ.get(f"FAKE_SLURM_{name}", "/nowhere")) for name in ("TERM", "PREEMPT"))
        state = notice.read_text() if notice.exists() else ""
        when = "2026-11-30T08:00:00" if preempted.exists() else "None"
        print(
            f"JobId={words[3]} {state or 'JobState=RUNNING'} PreemptEligibleTime=2026-11-30T07:00:00 PreemptTime={when}"
        )
        return 0
    if words[:2] == ["show", "hostnames"]:
        print("\n".join(hostnames(words[2])))
        return 0
    if words[:1] == ["requeue"] and len(words) == 2:
        (Path(os.environ["FAKE_SLURM_SPOOL"]) / f"requeue-{words[1]}").touch()
        return 0
    sys.exit(f"fake Slurm: scontrol {words}")


if __name__ == "__main__":
    sys.exit({"sbatch": sbatch, "srun": srun, "scontrol": scontrol}[sys.argv[1]](sys.argv[2:]))
