"""Checks of free disk space and shared memory before a job writes."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from trackmill.pipeline.console.words import readable_bytes
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.urls import filesystem, is_local

SHARED_MEMORY = Path("/dev/shm")
"""Processes of one machine pass tensors through it. A container has 64 MB by default."""
LITTLE_SHARED_MEMORY = 256 << 20


def free_bytes(url: str) -> int | None:
    """Bytes that are free where a file or folder is, or will be; None of a store, which has no end."""
    if not is_local(url):
        return None
    path = Path(filesystem(url)[1])
    with contextlib.suppress(OSError, StopIteration):
        return shutil.disk_usage(next(each for each in (path, *path.parents) if each.exists())).free
    return None


def too_little_disk_space(url: str, needed: int, what: str) -> str:
    """One line where a disk has not as many bytes free as will be needed; empty where it has, or where nobody knows.

    Args:
        url: where they go.
        needed: bytes.
        what: takes them, such as `a checkpoint`.
    """
    free = free_bytes(url)
    if free is None or free >= needed:
        return ""
    return (
        f"{redact(url)}: {what} takes about {readable_bytes(needed)}, and {readable_bytes(free)} are free on its disk"
    )


def too_little_shared_memory(needed: int = LITTLE_SHARED_MEMORY) -> str:
    """One line where this machine's shared memory is smaller than what will pass through it, else empty."""
    try:
        total = shutil.disk_usage(SHARED_MEMORY).total
    except OSError:
        return ""
    if total >= needed:
        return ""
    return (
        f"{SHARED_MEMORY} has {readable_bytes(total)} in all, too little to pass batches of large pictures between "
        'processes: make it larger (docker run --shm-size=8g; in Kubernetes an emptyDir with medium "Memory" there)'
    )
