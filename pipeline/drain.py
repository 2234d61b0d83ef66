"""Clears this machine before it is taken away: `python -m trackmill.pipeline.drain --within 40`.

Kubernetes runs it before it ends a pod (`preStop`); a cloud's notice of two minutes may as well. Ray hears that the
machine is about to go, so that nothing new is placed here and deaths here count as taken back; then our own processes
get SIGTERM, finish or drop what they hold, and save; then this waits until they are gone. Miners and ranks are
recognised by the titles that Ray gives its workers, jobs of a head by their command line.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import psutil

_RAY_S = 10.0
"""Seconds that Ray gets to hear of it: its command needs some to start."""
_LOOK_S = 0.2
_WORKERS = ("ray::MinerActor", "ray::RayTrainWorker")
_JOB = re.compile(r"(^|/)jobs/\w+\.py$|^trackmill\.jobs\.\w+$|(^|/)trackmill$")
_REASON = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "this machine is taken back"]


def ours(user: str | None = None) -> list[psutil.Process]:
    """Processes on this machine that hold work: miners, ranks, and jobs.

    Args:
        user: whose; that of this process.
    """
    user = user or psutil.Process().username()
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if process.pid != os.getpid() and words and process.username() == user and _holds_work(words):
                found.append(process)
    return found


def _holds_work(words: Sequence[str]) -> bool:
    if words[0].startswith(_WORKERS):
        return True
    # `python jobs/train.py ...`, `python -m trackmill.jobs.train ...`, `/usr/bin/trackmill mine ...`
    return any(_JOB.search(word) for word in words[:3]) and not any(word == "submit" for word in words)


def tell_ray(within_s: float) -> str:
    """Ask the cluster of this machine to place nothing here any more; returns what went wrong, if anything."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", *_REASON]
    command += ["--deadline-remaining-seconds", str(max(1, int(within_s)))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=min(_RAY_S, within_s))
    except subprocess.TimeoutExpired:
        return "no answer"
    return "" if done.returncode == 0 else (done.stdout + done.stderr).strip().rpartition("\n")[2]


def drain(within_s: float, say: Callable[[str], None] = print, tell: Callable[[float], str] = tell_ray) -> bool:
    """Drain this machine; true if all that held work has ended in time.

    Args:
        within_s: seconds for all of it.
        say: gets a line for each step.
        tell: tells Ray, see `tell_ray`; what it says is passed on, and hinders nothing.
    """
    until = time.monotonic() + within_s
    if wrong := tell(within_s):
        say(f"Ray was not told that this machine goes: {wrong}")
    told = ours()
    for process in told:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    say(f"{len(told)} processes were asked to finish what they hold")
    left = told
    while left and time.monotonic() < until:
        _, left = psutil.wait_procs(left, timeout=min(_LOOK_S, max(0.0, until - time.monotonic())))
    say(f"{len(left)} are still at work after {within_s:g} s" if left else "all have ended")
    return not left


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if all has ended, 1 if not: who ends the machine does so anyway."""
    parser = argparse.ArgumentParser(prog="python -m trackmill.pipeline.drain", description=__doc__)
    parser.add_argument("--within", type=float, default=40.0, metavar="S", help="seconds for all of it (default 40)")
    return 0 if drain(parser.parse_args(arguments).within, lambda line: print(f"drain: {line}", flush=True)) else 1


if __name__ == "__main__":
    sys.exit(main())
