"""Being one of several processes that work on one output: one of them begins it, one of them sums it up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Generic, TypeVar

from trackmill.pipeline.console.words import counted
from trackmill.pipeline.storage.claims import Claims
from trackmill.pipeline.storage.output_lock import OutputLock, holder, in_turn
from trackmill.pipeline.storage.owner import Owner

R = TypeVar("R")


class _Ready(Exception, Generic[R]):
    """Another process has begun what this one was about to begin."""

    def __init__(self, run: R) -> None:
        self.run = run


def join_work(
    claims: Claims,
    output: str,
    job: str,
    turn: str,
    *,
    begun: bool,
    ready: Callable[[], R | None],
    begin: Callable[[], R],
) -> R:
    """Begin what is to be done, or take what others have begun, and be one of those who work on it.

    The output is locked as long as something is begun and stored. Where nothing is to be stored nothing is locked: a
    thousand processes read the same at the same moment.

    Args:
        claims: of this process on `output`; joined on return.
        output: root URL.
        job: what processes of this kind are called in locks.
        turn: what is done while it is locked, such as `planning`.
        begun: whether something is there that may be ready.
        ready: what is to be done, if it is all stored; None: something is left to be stored.
        begin: makes and stores it; called while the output is locked.

    Raises:
        OutputLocked: another job, or an older version of this one, holds the output.
        Exception: what `ready` and `begin` raise.
    """

    def nobody_begins() -> bool:
        owner = holder(output)
        return owner is None or (owner.job.startswith(f"{job}: ") and not owner.job.endswith(turn))

    def look_again(owner: Owner | None) -> None:
        claims.join()
        if nobody_begins() and (run := ready()) is not None:
            raise _Ready(run)

    if begun:
        # First of all, so that whoever would begin anew here sees that somebody is at work; then it is looked whether
        # somebody is about to.
        claims.join()
        if nobody_begins() and (run := ready()) is not None:
            return run
    try:
        with in_turn(output, job, turn, look_again):
            run = begin()
            claims.join()
            return run
    except _Ready as found:
        made: R = found.run
        return made


@contextlib.contextmanager
def summing_up(
    claims: Claims, output: str, job: str, thing: str, done: Collection[str]
) -> Iterator[tuple[OutputLock, bool]]:
    """The moment after all is done, alone: nobody begins anything meanwhile, nor sums up.

    What the dead left in claims is swept away.

    Args:
        claims, output, job: see `join_work`.
        thing: what is done, for others who wait, such as `unit`.
        done: names of the pieces that are.

    Yields:
        The lock; whether another process has summed up while this one waited: of many who end at once, one does it
        for all.
    """
    turn = f"summing up {counted(len(done), thing)}"
    by_another = False

    def wait(owner: Owner | None) -> None:
        nonlocal by_another
        by_another |= owner is not None and owner.job == f"{job}: {turn}"

    with in_turn(output, job, turn, wait) as lock:
        claims.sweep(done)
        yield lock, by_another and not lock.inherited
