"""`jobs/train.py` with the tiny task known to it: `python -m tests.training.train_tiny ARGUMENTS`."""

from __future__ import annotations

import os
import sys
import time

from tests.training.tiny_task import TinyTask, register
from trackmill.jobs.train import main

if __name__ == "__main__":
    register()
    if stands_still := int(os.environ.get("TINY_STANDS_STILL_IN", 0)):
        steps = iter(range(1, 1 << 30))
        TinyTask.poison = staticmethod(lambda: next(steps) == stands_still and bool(time.sleep(3600)))
    sys.exit(main())
