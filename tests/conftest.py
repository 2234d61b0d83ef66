"""What every test run has: a summary of what was skipped, and for want of what."""

from tests.summary import pytest_terminal_summary  # noqa: F401 - a hook, which pytest finds by its name
