"""`python -m trackmill`: the same as the command `trackmill`."""

from __future__ import annotations

from trackmill.jobs.main import script

if __name__ == "__main__":
    script()
