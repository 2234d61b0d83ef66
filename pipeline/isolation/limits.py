"""How much memory and time one call in a child process may take, and what is said of one that takes more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from trackmill.schemas.errors import InputError


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may take.

    Args:
        memory_bytes: beyond what the child holds before its first call; 0: as much as there is.
        seconds: on the clock; 0: as long as it takes.
        section: of the settings that both come from, `item_memory_bytes` and `item_timeout_s`; for messages.
        times: how many times `seconds` a call may take: of large inputs so much for each part.
    """

    memory_bytes: int = 0
    seconds: float = 0.0
    section: str = "run"
    times: int = 1

    @property
    def call_seconds(self) -> float:
        """What a call may take altogether; 0: as long as it takes."""
        return self.seconds * self.times


class LimitReached(InputError):
    """An input exceeded a limit, or crashed the process that read it: the fault lies with the input."""


class MemoryLimit(LimitReached):
    """Reading an input takes more than `item_memory_bytes`."""


class TimeLimit(LimitReached):
    """Reading an input takes longer than `item_timeout_s`."""


class ReaderDied(LimitReached):
    """The process that read an input ended: a decoder crashed, or the machine ran out of memory."""


def too_much_memory(limits: Limits) -> MemoryLimit:
    """For an input that met the limit on memory, or the machine's own."""
    if not limits.memory_bytes:
        return MemoryLimit("reading it takes more memory than this machine has left")
    return MemoryLimit(
        f"reading it takes more memory than `{limits.section}.item_memory_bytes` = {limits.memory_bytes}; raise that "
        "if it is meant to be so large"
    )


def too_long(limits: Limits) -> TimeLimit:
    """For an input that met the limit on time."""
    times = f"{limits.times} times " if limits.times > 1 else ""
    return TimeLimit(
        f"reading it takes longer than {times}`{limits.section}.item_timeout_s` = {limits.seconds:g}; raise that if it "
        "is meant to take so long, or if storage is slow"
    )


_IN_FORCE: ContextVar[Limits | None] = ContextVar("limits", default=None)


@contextmanager
def limited(limits: Limits | None) -> Iterator[None]:
    """Within, files are probed in child processes under these limits; None: in this process, without any."""
    token = _IN_FORCE.set(limits)
    try:
        yield
    finally:
        _IN_FORCE.reset(token)


def limits_in_force() -> Limits | None:
    """Those of the innermost `limited`; None outside of any."""
    return _IN_FORCE.get()
