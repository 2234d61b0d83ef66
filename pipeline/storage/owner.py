"""Which process a small file in an output speaks of: who holds it, who works there, who has a unit in hand."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from trackmill.pipeline.storage.names import printable
from trackmill.pipeline.storage.processes import is_alive, is_here, machine, started_at

MAX_OWNER_BYTES = 64 * 1024
_LONGEST = 200
"""Characters of what a file says of itself that are ever shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A process that wrote such a file.

    Args:
        job: name of the job.
        host, pid: where it runs, for people.
        machine: what tells machines and their process namespaces apart, see `processes.machine`.
        started: when the process began, see `processes.started_at`: another one may have its number later.
        since: local time at which it began to own it, for people.
        token: of this file, or of the files of this process, alone.
    """

    job: str
    host: str
    pid: int
    machine: str
    started: str
    since: str
    token: str

    def __str__(self) -> str:
        # Anybody who can write to the output may have written these.
        text = f"job {self.job[:_LONGEST]}, process {self.pid} on {self.host[:_LONGEST]}, since {self.since[:40]}"
        return printable(" ".join(text.split()))

    @property
    def alive_here(self) -> bool | None:
        """Whether it lives, if it ran on this machine; None of another machine's."""
        return is_alive(self.pid, self.started) if is_here(self.machine, self.started) else None

    def values(self) -> dict[str, Any]:
        """As it is written down."""
        return {name: getattr(self, name) for name in Owner.__slots__}


def this_process(job: str) -> Owner:
    """This process, with a token that nobody else has."""
    return Owner(
        job=job,
        host=socket.gethostname(),
        pid=os.getpid(),
        machine=machine(),
        started=started_at(os.getpid()),
        since=datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
        token=os.urandom(8).hex(),
    )


def read_owner(document: bytes | None) -> Owner | None:
    """The owner that a file names; None where it names none."""
    try:
        values: dict[str, Any] = orjson.loads(document or b"")
        owner = Owner(**{name: values[name] for name in Owner.__slots__})
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    strings = ("job", "host", "machine", "started", "since", "token")
    return owner if type(owner.pid) is int and all(type(getattr(owner, name)) is str for name in strings) else None
