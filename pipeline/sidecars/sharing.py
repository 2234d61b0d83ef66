"""The parts of a sidecar that this process makes, where others may make parts of the same one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from trackmill.pipeline.sidecars.part_work import PartResult, PartUnit
from trackmill.pipeline.sidecars.prepare import Making, stamps
from trackmill.pipeline.storage.claims import Claims
from trackmill.pipeline.storage.files import exists
from trackmill.pipeline.workers.parts import Part
from trackmill.pipeline.workers.share import Share


class SharedMaking:
    """A sidecar whose parts are claimed before they are made.

    Args:
        making: see `trackmill.pipeline.sidecars.joining.join_sidecar`.
        claims: joined already, unless nothing is left to be made.
        part, helps, waits: see `Share`.
    """

    def __init__(
        self, making: Making, claims: Claims, part: Part | None = None, helps: bool = True, waits: bool = False
    ) -> None:
        self._making = making
        self._units = {unit.unit: unit for unit in making.todo}
        self._settled: set[int] = set()
        self.claims = claims
        self.part = part
        self._share = Share(
            claims,
            # All of them, so that who comes later takes the same shares as who came first.
            list(self._units) if making.only_quarantined else range(making.parts),
            lambda place: making.tasks[place].claim,
            self._done,
            self._still_to_do,
            part,
            helps,
            waits,
            alone=making.settings.executor == "inline",
        )

    @property
    def own(self) -> list[PartUnit]:
        """What is to be made of the own share."""
        own = set(self._share.own)
        return [unit for unit in self._making.todo if unit.unit in own]

    def tasks(
        self, may_wait: bool, helps: Callable[[int, int], None] = lambda samples, frames: None
    ) -> Iterator[PartUnit]:
        """What to make next; see `Share.units`.

        Args:
            may_wait: see there.
            helps: called with the samples and frames of a part that is not of the own share.
        """
        own = set(self._share.own)
        for place in self._share.units(may_wait):
            unit = self._units[place]
            if place not in own:
                helps(len(unit.items), unit.frames)
            yield unit

    def release(self, result: PartResult) -> None:
        """A part is made, or cannot be made, which this process does not try twice."""
        self._settled.add(result.unit)
        self._share.release(result.unit, done=not result.failed)

    def left(self) -> list[int]:
        """Places of the parts that are not made yet, those out of this share's reach included."""
        done = self._done()
        return [unit.unit for unit in self._making.todo if unit.unit not in done]

    def in_work(self, places: list[int]) -> list[int]:
        """Those of some parts that somebody has in hand."""
        claimed = self.claims.pieces()
        tasks = self._making.tasks
        return [place for place in places if tasks[place].claim in claimed and place not in self.given_up]

    @property
    def given_up(self) -> frozenset[int]:
        """Parts that nobody will make by itself: they killed several processes, or cannot be claimed."""
        return self._share.given_up

    def _done(self) -> set[int]:
        """By one listing: all but those that are to be made and neither there nor written anew."""
        now = stamps(self._making.layout, self._making.name)
        left = {place for place, unit in self._units.items() if now.get(unit.title) == self._before(unit)}
        return set(range(self._making.parts)) - left | self._settled

    def _still_to_do(self, place: int) -> bool:
        unit = self._units[place]
        if not self._making.only_quarantined:
            return not exists(self._making.layout.sidecar_part(self._making.name, unit.title))
        # Somebody else may have made it again since.
        return stamps(self._making.layout, self._making.name).get(unit.title) == self._before(unit)

    def _before(self, unit: PartUnit) -> str | None:
        """How the part looked while it was still to be made; None: it was missing."""
        return self._making.written.get(unit.title) if self._making.only_quarantined else None
