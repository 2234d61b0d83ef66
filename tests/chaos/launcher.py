"""A launcher of ranks as torchrun is one, which imports once: `python -m tests.chaos.launcher WORLD WORDS...`.

Ranks are forked from it and run the words as `trackmill train` would. When one dies the others are ended and all start
again; when all end in good order, so does it. They end with it, however it ends, as in a container.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
from types import FrameType

import torch

import tests.chaos.slow_tiny  # noqa: F401 - imported before ranks are forked
import trackmill.pipeline.training.dry_run
import trackmill.pipeline.training.launch  # noqa: F401 - likewise
from trackmill.jobs import train
from trackmill.pipeline.console.leaving import leave

_DEATH_SIGNAL = 1
_LOOK_S = 0.02
RESTARTS = 10_000


def main(world: int, words: list[str]) -> int:
    """Run the ranks until they end in good order; their exit code, as a shell tells it."""
    torch.set_num_threads(1)
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    signal.signal(signal.SIGTERM, note)
    for _ in range(RESTARTS):
        codes = _once(world, words, asked)
        if asked or not any(codes):
            worst = max(codes, key=abs)
            return worst if worst >= 0 else 128 - worst
        print(f"launcher: ranks ended with {codes}; all start again", flush=True)
    return 1


def _once(world: int, words: list[str], asked: list[int]) -> list[int]:
    """Start all ranks, and wait for their ends; their exit codes, negative for a signal."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = {_fork(rank, world, port, words): rank for rank in range(world)}
    codes: dict[int, int] = {}
    told = False
    while len(codes) < world:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in ranks:
            codes[ranks[pid]] = os.waitstatus_to_exitcode(status)
        elif not pid:
            time.sleep(_LOOK_S)
        alive = [pid for pid, rank in ranks.items() if rank not in codes]
        if asked and not told:
            told = True
            _send(alive, signal.SIGTERM)
        if any(codes.values()) and not asked:
            _send(alive, signal.SIGKILL)
    return [codes[rank] for rank in range(world)]


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _fork(rank: int, world: int, port: int, words: list[str]) -> int:
    parent = os.getpid()
    if pid := os.fork():
        return pid
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
        LOCAL_WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        CHAOS_RANK=str(rank),
    )
    leave(int(train.main(words)))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
