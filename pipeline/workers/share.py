"""Which units this process does: its own share first, then what nobody has in hand, then what the dead had."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain, islice
from typing import TypeVar

from trackmill.pipeline.console.words import counted
from trackmill.pipeline.storage.claims import DEATHS_OF_A_PIECE, Claims
from trackmill.pipeline.storage.credentials import error_text
from trackmill.pipeline.workers.decisions import FAILURES_OF_A_UNIT
from trackmill.pipeline.workers.output_pause import OutputPause, may_pass
from trackmill.pipeline.workers.parts import Part

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger("trackmill")

_REFRESH_S = 15.0
"""How long a listing is believed before the next one, by who helps others."""
_TAKEN_AT_ONCE = 64
_AHEAD = 8
_TRIES = 5


class Share:
    """The work of this process on units that others may do too.

    Args:
        claims: joined already.
        units: all of them, done or not, in order.
        name_of: name of a unit's claim.
        done: the units that are done by now; asked again and again.
        still_to_do: whether one unit is, looked at after it was claimed: it may have been done a moment before.
        part: which share comes first; None: all.
        helps: go on with units of others.
        waits: until everything is done, and not only until all that is left is in living hands.
        alone: this process does units itself, one after the other. A pool claims some ahead, and sees itself who or
            what kills its workers.
    """

    def __init__(
        self,
        claims: Claims,
        units: Sequence[int],
        name_of: Callable[[int], str],
        done: Callable[[], Collection[int]],
        still_to_do: Callable[[int], bool],
        part: Part | None = None,
        helps: bool = True,
        waits: bool = False,
        alone: bool = True,
    ) -> None:
        self.part = part
        self.own = part.own(units) if part else units
        self._order = [*self.own, *(part.to_help(units) if part and helps else ())]
        self._claims = claims
        self._name_of = name_of
        self._done = done
        self._still_to_do = still_to_do
        self._waits = waits
        self._alone = alone
        # Where claiming takes a request, a pool claims some ahead; but not before it has started.
        self._at_once = 1
        self._most_at_once = 1 if alone or claims.is_local else _AHEAD
        self._tries: Counter[int] = Counter()
        self._given_up: set[int] = set()
        self._told = False
        if not alone:
            claims.watch()

    def units(self, may_wait: bool) -> Iterator[int]:
        """Units that are claimed for this process, one after the other.

        Args:
            may_wait: look for up to `expires_s` whether who holds the last units lives. A pool that is waiting could
                not collect results.
        """
        done = set(self._done())
        claimed = self._claims.pieces()
        yield from self._free(unit for unit in self.own if unit not in done and self._name_of(unit) not in claimed)
        while left := self.left():
            claimed = self._claims.pieces()
            free = [unit for unit in left if self._name_of(unit) not in claimed]
            if free:
                began = time.monotonic()
                for unit in self._free(free):
                    yield unit
                    if time.monotonic() - began > _REFRESH_S:
                        break  # much may be done or claimed by now
                continue
            dead, unknown = self._dead_and_unknown(left)
            taken = self._claims.take_over(self._name_of(unit) for unit in islice(dead, self._most_taken()))
            if taken:
                yield from self._confirmed([unit for unit in dead if self._name_of(unit) in taken])
                continue
            self._give_up(dead)
            if not may_wait or not (unknown or dead or self._waits):
                return
            self._tell_of_waiting(unknown)
            time.sleep(self._claims.poll_s)

    def left(self) -> list[int]:
        """What is not done, neither in this process's hands, in the order in which it would do it."""
        done, held = set(self._done()), self._claims.held
        return [
            unit
            for unit in self._order
            if unit not in done and unit not in self._given_up and self._name_of(unit) not in held
        ]

    def release(self, unit: int, done: bool = True) -> None:
        """A unit is done, or given back."""
        self._claims.release(self._name_of(unit), done)

    @property
    def given_up(self) -> frozenset[int]:
        """Units that killed several processes, or cannot be claimed."""
        return frozenset(self._given_up)

    def _most_taken(self) -> int:
        return 1 if self._alone else _TAKEN_AT_ONCE

    def _free(self, units: Iterator[int] | list[int]) -> Iterator[int]:
        """Those of some units that nobody else claims first."""
        units = iter(units)
        while some := list(islice(units, self._at_once)):
            self._at_once = min(self._most_at_once, self._at_once * 2)
            taken = set(self._claimed([self._name_of(unit) for unit in some]))
            yield from self._confirmed([unit for unit in some if self._name_of(unit) in taken])

    def _claimed(self, names: list[str]) -> list[str]:
        """Those of some pieces that were free. A claim takes room, too: without any it waits as units do."""
        pause, tries = OutputPause(), 0
        while True:
            try:
                self._claims.claim(names)
            except OSError as error:
                tries += 1
                if not may_pass(error) or tries == FAILURES_OF_A_UNIT:
                    raise
                time.sleep(pause.failed(f"no unit can be claimed: {error_text(error)}", tries))
            else:
                pause.written()
                held = self._claims.held  # of several, some may have been claimed by a try that failed
                return [name for name in names if name in held]

    def _confirmed(self, units: list[int]) -> Iterator[int]:
        """Those of some units in hand that are still to be done."""
        for unit in units:
            if self._still_to_do(unit):
                yield unit
            else:
                self._claims.release(self._name_of(unit), done=False)

    def _dead_and_unknown(self, units: list[int]) -> tuple[list[int], list[int]]:
        self._claims.look()
        dead, unknown = [], []
        for unit in units:
            sign = self._claims.sign(self._name_of(unit))
            if sign == "unknown":
                unknown.append(unit)
            elif sign == "dead":
                if self._alone and self._claims.deaths(self._name_of(unit)) >= DEATHS_OF_A_PIECE:
                    self._given_up.add(unit)
                    log.warning(
                        "%s is left alone: %d processes died with it in hand; --executor ray finds the item that "
                        "kills them and leaves only that out",
                        self._name_of(unit),
                        self._claims.deaths(self._name_of(unit)),
                    )
                    continue
                dead.append(unit)
        return dead, unknown

    def _give_up(self, dead: list[int]) -> None:
        """Claims of the dead that cannot be taken over, again and again."""
        self._tries.update(dead[: self._most_taken()])
        for unit in dead:
            if self._tries[unit] >= _TRIES:
                self._given_up.add(unit)
                log.warning("%s is left: what lies in place of its claim cannot be removed", self._name_of(unit))

    def _tell_of_waiting(self, unknown: list[int]) -> None:
        if not self._told:
            self._told = True
            units = counted(len(unknown), "unit that is left is", "units that are left are")
            log.info(
                "%s; looking whether they live, for up to %.0f s",
                f"{units if unknown else 'all units that are left are'} in the hands of other processes",
                self._claims.expires_s,
            )


def shared_results(
    run: Callable[[Iterator[T]], Iterator[R]],
    tasks: Callable[[bool], Iterator[T]],
    release: Callable[[R], None],
    alone: bool,
) -> Iterator[R]:
    """Do what a share gives, until nothing is left for this process.

    Args:
        run: starts an executor, which does some tasks; not called for nothing.
        tasks: see `Share.units`; called again for what others leave.
        release: called with each result before it is given on.
        alone: see `Share`.
    """
    waits = alone
    while True:
        some = tasks(waits)
        first = next(some, None)
        if first is not None:
            for result in run(chain([first], some)):
                release(result)
                yield result
        elif waits:
            return
        waits = True  # what others had in hand may be left, by one who has died
