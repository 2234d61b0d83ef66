"""How the whole suite runs: one thread a process, which tests may run beside each other, what was skipped.

`make test` runs two processes of pytest-xdist. The tests of a file stay in one process, so that a module's fixtures are
made once. All files that start Ray stay in one process too: two clusters at once starve each other on two cores.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator
from typing import Any

import pytest

from tests.starts_ray import starts_ray
from tests.summary import pytest_terminal_summary  # noqa: F401 - a hook, which pytest finds by its name

# Set before torch is imported, and inherited by jobs under test: on a busy machine the threads of small operators wait
# for each other for minutes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A suite that was started in the background, or by nohup, has these ignored, and so has every job that it starts.
if threading.current_thread() is threading.main_thread():
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with Ray's tests first, since they take longest, and then the types."""
    items.sort(key=lambda item: (not starts_ray(file := item.nodeid.partition("::")[0]), file != "tests/test_types.py"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each file is one group, all files with Ray's tests are one; see `tests.together`."""
    from tests.together import FilesTogether

    config.option.loadscopereorder = False  # Ray's stay first
    return FilesTogether(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let reports travel between processes: names that are no UTF-8, as tests log them, cannot."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report
