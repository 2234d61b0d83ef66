"""What this process may use of its machine: the limits of its container count, not the machine's size."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil

_CPUS = Path("/sys/fs/cgroup/cpu.max")
_MEMORY = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
"""Where a container's limit and use are told, of both versions of control groups."""


def usable_cpus() -> float:
    """CPUs that this process may use: of the machine, of its affinity, of its container."""
    cpus = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
        quota, period = _CPUS.read_text().split()
        cpus = min(cpus, int(quota) / int(period))
    return cpus


def memory_bytes() -> tuple[int, int]:
    """(free, total) bytes of memory, of the machine or of its container, whichever has less."""
    memory = psutil.virtual_memory()
    free, total = int(memory.available), int(memory.total)
    for limit, used in _MEMORY:
        with contextlib.suppress(OSError, ValueError):
            most = int(limit.read_text())
            free, total = min(free, max(0, most - int(used.read_text()))), min(total, most)
    return free, total
