"""How much memory is free for this process, and a limit on what it may take of it."""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from trackmill.pipeline.console.containers import memory_bytes


def free_memory(device: torch.device) -> int:
    """Bytes that can be taken without anybody being killed: of the GPU, or of this machine within its container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return memory_bytes()[0]


@contextlib.contextmanager
def at_most(device: torch.device, limit: int) -> Iterator[None]:
    """Within, this process may take so many bytes more; taking more is an error, see `is_out_of_memory`.

    What the C library holds back of memory that was freed before does not count: a process measures at its beginning.
    """
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(
            min(1.0, (torch.cuda.memory_reserved(device) + limit) / total), device
        )
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)
        return
    if sys.platform != "linux":
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    ceiling = _private_bytes() + limit
    if before[1] != resource.RLIM_INFINITY:
        ceiling = min(ceiling, before[1])
    resource.setrlimit(resource.RLIMIT_DATA, (ceiling, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, NumPy or Python says that memory could not be had."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and any(
        each in said for each in ("can't allocate memory", "not enough memory", "out of memory", "could not create")
    )


class PeakMemory:
    """The most bytes that this process has held since it was made; on a GPU, by tensors there."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # the kernel counts anew from here
        self._before = self._now()

    def grown(self) -> int:
        """How much more that was than in the beginning."""
        return max(0, self._now() - self._before)

    def _now(self) -> int:
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _private_bytes() -> int:
    return _status("VmData")


def _status(name: str) -> int:
    """A line of /proc/self/status in bytes, 0 where there is none."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0
