"""Counts skipped tests by what they want, and prints that at the end of a test run.

A data set, a GPU or an extra that is not there makes tests skip, and a run that skipped half of them ends as green as
one that skipped none. `pytest_terminal_summary` is imported by `tests/conftest.py`. It reads the reports that pytest
has gathered, so it counts the same when tests run in several processes.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from tests.shared_data import NEEDS_DATA

WANTS = (
    # what a reason has in it -> what was missing
    (re.compile(re.escape(NEEDS_DATA)), "a data set in ../shared/data"),
    (re.compile(r"\bGPUs?\b|\bCUDA\b"), "a GPU"),
    (re.compile(r"could not import|not installed|pip install|\bextra\b|No module named"), "a package or an extra"),
    (re.compile(r"compiler|ninja|g\+\+"), "a compiler"),
    (re.compile(r"x86-64|platform|only on"), "another kind of machine"),
)
OTHER = "something else"


def want_of(reason: str) -> str:
    """What a skipped test was missing, from its reason."""
    return next((want for pattern, want in WANTS if pattern.search(reason)), OTHER)


def reason_of(report: Any) -> str:
    """The reason of a skipped report; pytest gives it as (file, line, reason)."""
    longrepr = report.longrepr
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return str(text).removeprefix("Skipped: ")


def summary_lines(reports: list[Any]) -> list[str]:
    """One line that counts skips by what they want, then one line for each want with its reasons."""
    if not reports:
        return ["skipped: none"]
    wants: dict[str, Counter[str]] = {}
    for report in reports:
        reason = reason_of(report)
        wants.setdefault(want_of(reason), Counter())[reason] += 1
    ordered = sorted(wants.items(), key=lambda item: (-item[1].total(), item[0]))
    counts = ", ".join(f"{reasons.total()} for want of {want}" for want, reasons in ordered)
    lines = [f"skipped: {counts}"]
    for _, reasons in ordered:
        lines += [f"  {count} x {reason}" for reason, count in sorted(reasons.items())]
    return lines


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was skipped, and why; a file that is skipped as a whole counts as one."""
    terminalreporter.section("skipped tests")
    for line in summary_lines(terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(line)
