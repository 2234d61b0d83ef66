"""Which process is meant by a number that was written to a file, and whether it still lives."""

from __future__ import annotations

import os
import socket


def machine() -> str:
    """This machine and the namespace in which it numbers processes.

    Containers may share a host's name, and then the number of a process in one means another process in the other.
    """
    try:
        return f"{socket.gethostname()}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return socket.gethostname()  # not Linux: there are no such namespaces


def started_at(pid: int) -> str:
    """When a process of this machine began, as the kernel counts; "" where that is not known.

    Numbers of processes are used again; number and beginning together are not, up to a restart of the machine.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as handle:
            # The second field is the program's name in parentheses, which may hold anything.
            fields = handle.read().rpartition(b")")[2].split()
        with open("/proc/sys/kernel/random/boot_id") as handle:
            return f"{handle.read().strip()[:8]}-{fields[19].decode()}"
    except (OSError, IndexError):
        return ""


def is_here(where: str, started: str) -> bool:
    """Whether a process that wrote down `machine()` and `started_at` runs, or ran, on this machine since it was booted.

    Machines may share a name, such as `localhost`, and number their namespaces alike; a boot has an id of its own.
    """
    boot, mark, _ = started.partition("-")
    return where == machine() and (not mark or boot == started_at(os.getpid()).partition("-")[0])


def is_alive(pid: int, started: str = "") -> bool:
    """Whether a process of this machine lives. One that has ended and that its parent has not asked about does not.

    Args:
        pid: its number.
        started: when it began, by `started_at`; "" where that is not known.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, but alive
    except OverflowError:
        return False
    if _has_ended(pid):
        return False
    now = started_at(pid)
    return not started or not now or now == started


def _has_ended(pid: int) -> bool:
    """Whether only a process's entry in the kernel's table is left: in many containers nobody ever collects them."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as handle:
            return handle.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (OSError, IndexError):
        return False
