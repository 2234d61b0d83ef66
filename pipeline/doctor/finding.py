"""What a check found, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import IntEnum


class Level(IntEnum):
    """How bad a finding is; of several the highest counts."""

    OK = 0
    """As it should be."""
    NOTE = 1
    """Nothing is wrong, but people should know."""
    WARNING = 2
    """The job runs, slower or with a risk."""
    FAULT = 3
    """The job would fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report.

    Args:
        about: what was looked at, in a word or two.
        level: how bad it is.
        said: what was found, with numbers.
        mend: what to do; every warning and every fault has one.
    """

    about: str
    level: Level = Level.OK
    said: str
    mend: str = ""

    def __post_init__(self) -> None:
        assert self.mend or self.level < Level.WARNING, f"{self.about}: a finding that says nothing of its mend"

    def plain(self) -> dict[str, str]:
        """Plain values for JSON."""
        return {**asdict(self), "level": self.level.name.lower()}
