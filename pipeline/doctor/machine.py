"""Processors, memory, disks and limits of this machine, within its container, against what is asked of it."""

from __future__ import annotations

import math
import resource
import tempfile

from trackmill.pipeline.console.containers import memory_bytes, usable_cpus
from trackmill.pipeline.console.disk_space import SHARED_MEMORY, free_bytes, too_little_shared_memory
from trackmill.pipeline.console.words import readable_bytes
from trackmill.pipeline.doctor.finding import Finding, Level
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.urls import is_local

MINING_WORKER_BYTES = 900 << 20
"""A mining actor and the child that reads for it, with a small proposer; `make bench` measures it. SAM on a CPU takes
some gigabytes more."""

TRAINING_RANK_BYTES = 4 << 30
"""A rank of a small model with two loader workers; `train --dry-run` measures what a recipe takes."""

RAY_BYTES = 1500 << 20
"""Ray's own processes on a machine."""

SCRATCH_BYTES = 512 << 20
"""Two shards of a worker: one that is filled, and one that is being published."""

FEW_FILES = 4096


def check_machine(job: str, workers: int, output: str = "") -> list[Finding]:
    """CPUs, memory, shared memory, open files and disks.

    Args:
        job: `mine` or `train`.
        workers: actors or ranks on this machine; 0: one per CPU for mining, one rank for training.
        output: URL of the output; "" where none was given.
    """
    cpus = usable_cpus()
    # As a pool does by itself: one worker for each CPU.
    count = workers or (max(1, math.floor(cpus)) if job == "mine" else 1)
    found = [_cpus(cpus, count, job), _memory(count, job), _shared_memory(job), _open_files(count)]
    found.append(_disk("scratch disk", tempfile.gettempdir(), count * SCRATCH_BYTES, "set TMPDIR to a larger disk"))
    if output and is_local(output):
        mend = "free some, or give another --output; a run whose disk fills up ends, and goes on once there is room"
        found.append(_disk("output disk", output, 2 * count * SCRATCH_BYTES, mend))
    return found


def _cpus(cpus: float, count: int, job: str) -> Finding:
    said = f"{cpus:g} CPUs for {count} {_what(job, count)}"
    if count > cpus:
        return Finding(
            about="cpus",
            level=Level.WARNING,
            said=f"{said}: they wait for each other",
            mend="ask for fewer --workers, or for a larger machine",
        )
    return Finding(about="cpus", said=said)


def _memory(count: int, job: str) -> Finding:
    free, total = memory_bytes()
    each = MINING_WORKER_BYTES if job == "mine" else TRAINING_RANK_BYTES
    needed = count * each + RAY_BYTES
    said = (
        f"{readable_bytes(free)} of {readable_bytes(total)} free; {count} {_what(job, count)} take about "
        f"{readable_bytes(needed)} and the model"
    )
    if needed > free:
        return Finding(
            about="memory",
            level=Level.WARNING,
            said=said,
            mend=f"at most {max(0, int((free - RAY_BYTES) // each))} fit: ask for fewer --workers, end what else "
            "runs, or take a larger machine",
        )
    return Finding(about="memory", said=said)


def _shared_memory(job: str) -> Finding:
    if told := too_little_shared_memory():
        level = Level.FAULT if job == "train" else Level.WARNING
        return Finding(about="shared memory", level=level, said=told.partition(": make")[0], mend=_mend_of(told))
    free = free_bytes(str(SHARED_MEMORY))
    return Finding(about="shared memory", said=f"{readable_bytes(free or 0)} free in {SHARED_MEMORY}")


def _mend_of(told: str) -> str:
    return told.partition("processes: ")[2] or told


def _open_files(count: int) -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = f"{soft} at once for one process"
    if soft != resource.RLIM_INFINITY and soft < min(FEW_FILES, 256 * count + 512):
        can = "" if hard in (resource.RLIM_INFINITY,) or hard >= 65536 else f" (the hard limit is {hard})"
        return Finding(
            about="open files",
            level=Level.WARNING,
            said=f"{said}; Ray and the loader may need more",
            mend=f"ulimit -n 65536 before the job{can}; in a container --ulimit nofile=65536",
        )
    return Finding(about="open files", said=said)


def _disk(about: str, url: str, needed: int, mend: str) -> Finding:
    free = free_bytes(url)
    said = f"{readable_bytes(free or 0)} free at {redact(url)}"
    if free is not None and free < needed:
        return Finding(about=about, level=Level.WARNING, said=f"{said}; {readable_bytes(needed)} should be", mend=mend)
    return Finding(about=about, said=said)


def _what(job: str, count: int) -> str:
    return ("worker" if job == "mine" else "rank") + ("" if count == 1 else "s")
