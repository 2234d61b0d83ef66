"""A clock that jumps, for processes whose PYTHONPATH begins with this folder.

`time.time` and `time.time_ns` are wrong by as many seconds as the file `CHAOS_CLOCK` says, from the moment it says so.
`time.monotonic` stays right, as it does on a machine whose clock is set. Of Ray, only what it does in Python is fooled.
"""

import os
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


if _FILE:
    _install()
