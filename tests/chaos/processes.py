"""Processes that the harness started, and their descendants: looked up, stopped and ended by pid, never by name alone.

Every process that belongs to a run carries `CHAOS_RUN` in its environment, so that what Ray starts on its own is found
too, even where its parent is gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable

import psutil

MARK = "CHAOS_RUN"


def family(run: str) -> list[psutil.Process]:
    """All living processes of a run but this one, by pid."""
    mark, own = f"{MARK}={run}".encode(), os.getpid()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == own:
            continue
        with contextlib.suppress(OSError, psutil.Error), open(f"/proc/{name}/environ", "rb") as handle:
            if mark in handle.read().split(b"\0"):
                found.append(psutil.Process(int(name)))
    return sorted(found, key=lambda each: each.pid)


def is_running(process: psutil.Process) -> bool:
    """Whether it lives; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def title(process: psutil.Process) -> str:
    """Its command line, which Ray's workers set to `ray::NAME`; "" where it is gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def descendants(pid: int) -> list[psutil.Process]:
    """Children, their children and so on, by pid; none where the process is gone."""
    try:
        return sorted(psutil.Process(pid).children(recursive=True), key=lambda each: each.pid)
    except psutil.Error:
        return []


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal; whether there was somebody to send it to."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def end_all(processes: Iterable[psutil.Process], timeout_s: float = 30.0) -> None:
    """SIGKILL, stopped ones too, and wait."""
    processes = list(processes)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=timeout_s)


def end_run(run: str) -> int:
    """End whatever is left of a run; returns how many processes there were. Some start others while they are ended."""
    ended: set[int] = set()
    for _ in range(20):
        left = [process for process in family(run) if is_running(process)]
        if not left:
            break
        ended |= {process.pid for process in left}
        end_all(left, 5.0)
        time.sleep(0.05)
    return len(ended)
