"""The tiny task at a pace that leaves time to be killed in: the same numbers, `CHAOS_STEP_S` later."""

from __future__ import annotations

import os
import time

from tests.training.tiny_task import TinyTask

SLOW = "tests.chaos.slow_tiny:SlowTask"


def wait() -> bool:
    """Take a moment; the loss is a number."""
    time.sleep(float(os.environ.get("CHAOS_STEP_S", 0)))
    return False


class SlowTask(TinyTask):
    """See above."""

    poison = staticmethod(wait)
