"""A tiny task that stands still where a test wants it; a run of it goes on as one of the tiny task, and the reverse.

In forward pass `PACED_STEP` of a process, counted from 1, a rank leaves its process id in the folder `PACED_FOLDER` and
waits there until the test puts a file `go` beside it. So a kill hits that step on any machine, however fast or slow.
"""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

from tests.training.tiny_task import TinyTask

PACED = "tests.faults.paced_tiny:PacedTask"

_passes = itertools.count(1)


def pace() -> bool:
    """Stand still if it is time to."""
    if next(_passes) == int(os.environ.get("PACED_STEP", 0)):
        folder = Path(os.environ["PACED_FOLDER"])
        (folder / f"rank-{os.environ.get('RANK', 0)}").write_text(str(os.getpid()))
        while not (folder / "go").exists():
            time.sleep(0.05)
    return False


class PacedTask(TinyTask):
    """See above."""

    poison = staticmethod(pace)
