"""Who is dead: whose file has not changed for so long, as far as this process has looked.

No clock is compared with another machine's, and none can be set wrong: seconds are counted by this process alone, from
the first look that showed a file as it still is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

Sign = Literal["alive", "dead", "unknown"]


@dataclass(slots=True)
class _Seen:
    looks: object
    since: float
    changed: bool


class SignsOfLife:
    """Remembers how files looked.

    Args:
        expires_s: seconds without a change after which a file's writer counts as dead.
        clock: counts seconds; for tests.
    """

    def __init__(self, expires_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.expires_s = expires_s
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._looked = -float("inf")

    def look(self, files: Mapping[str, object]) -> None:
        """Take in how all files look now, by name; what is not named any more is forgotten."""
        now = self._clock()
        if now - self._looked > self.expires_s / 2:
            # This process did not look for long, or was stopped itself: others may have changed and died since.
            self._seen.clear()
        self._looked = now
        seen = {}
        for name, looks in files.items():
            before = self._seen.get(name)
            if before is None:
                seen[name] = _Seen(looks, now, changed=False)
            elif before.looks != looks:
                seen[name] = _Seen(looks, now, changed=True)
            else:
                seen[name] = before
        self._seen = seen

    def of(self, name: str) -> Sign:
        """What the last looks say: alive, if the file changed within `expires_s`; unknown, if not looked at for long
        enough."""
        seen = self._seen.get(name)
        if seen is None:
            return "unknown"
        if self._clock() - seen.since >= self.expires_s:
            return "dead"
        return "alive" if seen.changed else "unknown"
