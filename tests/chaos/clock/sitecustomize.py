"""A clock that jumps, and packages that are not there, for processes whose PYTHONPATH begins with this folder.

`time.time` and `time.time_ns` are wrong by as many seconds as the file `CHAOS_CLOCK` says, from the moment it says so.
`time.monotonic` stays right, as it does on a machine whose clock is set. Of Ray, only what it does in Python is fooled.

Packages that `CHAOS_HIDDEN` names are not found, as in an image that does not have them.
"""

import os
import sys
import time

_FILE = os.environ.get("CHAOS_CLOCK", "")
_LOOK_S = 0.25


def _install() -> None:
    true_time, true_time_ns, monotonic = time.time, time.time_ns, time.monotonic
    seen = [0.0, -1.0]  # seconds off; when that was looked up

    def off() -> float:
        now = monotonic()
        if now - seen[1] > _LOOK_S:
            seen[1] = now
            try:
                with open(_FILE) as handle:
                    seen[0] = float(handle.read() or 0)
            except (OSError, ValueError):
                pass  # it is being written
        return seen[0]

    def jumping_time() -> float:
        return true_time() + off()

    def jumping_time_ns() -> int:
        return true_time_ns() + int(off() * 1e9)

    time.time, time.time_ns = jumping_time, jumping_time_ns


class _Hidden:
    """Finds none of some packages."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


if _FILE:
    _install()
if _HIDDEN := os.environ.get("CHAOS_HIDDEN", "").split():
    sys.meta_path.insert(0, _Hidden(_HIDDEN))  # type: ignore[arg-type]
