"""`python -m trackmill`: the same as the command `trackmill`."""

from __future__ import annotations

import sys

from trackmill.jobs.main import main

if __name__ == "__main__":
    sys.exit(main())
