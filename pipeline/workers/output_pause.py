"""What follows when the output cannot be written for a while: a disk without room, a store that refuses.

Somebody may make room, and a store comes back. Tries that follow each other at once would all be over before that, and
whatever else is begun meanwhile cannot be written either. So nothing is begun for some seconds, twice as many with each
try of a unit, and the person is told once.
"""

from __future__ import annotations

import errno
import logging
import math
import time
from collections.abc import Callable

from trackmill.pipeline.console.words import duration
from trackmill.pipeline.workers.task import StorageFailed
from trackmill.schemas.errors import StorageError

log = logging.getLogger("trackmill")

FIRST_PAUSE_S = 5.0
"""After the first failure; of a unit that fails five times, all pauses together take 75 s."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def may_pass(error: BaseException | None) -> bool:
    """Whether what kept an output from being written is nothing that only a change of settings would mend.

    Args:
        error: no room on a disk or in a quota, or a store that failed after all attempts: those pass.
    """
    return isinstance(error, StorageError) or (isinstance(error, OSError) and error.errno in _NO_ROOM)


def pause_s(tries: int) -> float:
    """Seconds to wait after so many tries that failed."""
    return FIRST_PAUSE_S * 2.0 ** (tries - 1)


class OutputPause:
    """For how long nothing is begun.

    Args:
        clock: seconds; for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = -math.inf
        self._told = False

    @property
    def holds(self) -> bool:
        """Whether nothing may be begun now."""
        return self._clock() < self._until

    def failed(self, cause: object, tries: int) -> float:
        """A try could not write its output.

        Args:
            cause: says where, and why.
            tries: of this unit that failed so.

        Returns:
            Seconds until the next one.
        """
        seconds = pause_s(tries)
        self._until = max(self._until, self._clock() + seconds)
        if not self._told:
            self._told = True
            log.warning("%s; tries again in %s, and then after longer pauses", cause, duration(seconds))
        return seconds

    def written(self) -> None:
        """An output was written."""
        if self._told:
            self._told = False
            self._until = -math.inf
            log.info("the output can be written again")


def marked(failed: StorageFailed) -> StorageFailed:
    """Note whether it may pass while its cause is known: who gets it from another process gets it without."""
    failed.may_pass = failed.may_pass or may_pass(failed.__cause__)
    return failed
