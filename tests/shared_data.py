"""Sample data sets that are no part of the repository: they lie in `../shared/data`, beside the checkout.

A test that reads one carries `@needs_data("mot15")`. Where it is missing the test is skipped with a reason that begins
with `NEEDS_DATA`, and the summary at the end of a test run counts these apart (`tests/summary.py`).
"""

from __future__ import annotations

from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
NEEDS_DATA = "needs the data set"


def needs_data(*names: str) -> pytest.MarkDecorator:
    """Skip unless each of these files or folders of `../shared/data` is there, such as "mot15"."""
    missing = [name for name in names if not (DATA / name).exists()]
    return pytest.mark.skipif(bool(missing), reason=f"{NEEDS_DATA} ../shared/data/{missing[0] if missing else ''}")
