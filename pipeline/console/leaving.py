"""The end of a process whose job is done."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from typing import NoReturn

from trackmill.pipeline.console.signals import STOP_SIGNALS


def leave(code: int) -> NoReturn:
    """End this process with an exit code, as `sys.exit` does, but without the destructors of C++ libraries.

    Arrow's threads may still be alive when those run; then the process aborts with 134 although all of its work is
    done: seen in one run of `inspect --verify` of twenty. What Python itself does at the end is done here. Whoever does
    not want to wait for that, and signals once more, ends the process at once.
    """
    for number in (signal.SIGINT, *STOP_SIGNALS):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: os._exit(code))
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads and pools, as the interpreter does
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
