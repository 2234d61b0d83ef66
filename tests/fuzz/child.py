"""The process that inputs are tried in: `python -m tests.fuzz.child MODULE TARGET`, with a limit on its memory.

It reads pickled requests from its standard input and answers each on its standard output; whatever else writes there
or to standard error goes into a log.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, BinaryIO

from tests.fuzz.outcomes import Kind, Outcome, digest, judge_error
from tests.fuzz.target import Broken, Files, Target, write_files

MOST_BYTES = 3 << 30
"""Address space of the process, and of every process that it starts."""
STACKS = signal.SIGUSR2
"""On this signal the child writes where its threads are into its log."""


def serve(target: Target, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more."""
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        _answer(answers, None)
        while True:
            try:
                files, names = pickle.load(requests)
            except EOFError:
                return
            _answer(answers, _try(target, files, names, root / "input"))
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _try(target: Target, files: Files, names: set[str], folder: Path) -> Outcome:
    # The same path every time: it stands in keys and fingerprints.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_files(files, folder)
    _forget_peak()
    before = time.process_time()
    try:
        outcome = Outcome(kind=Kind.SAME, text=digest(target.run(folder), folder))
    except Broken as error:
        outcome = Outcome(kind=Kind.TRACEBACK, text=str(error)[:1500], place=str(error)[-3000:])
    except BaseException as error:
        try:
            outcome = judge_error(error, target, names, folder)
        except MemoryError:
            outcome = Outcome(kind=Kind.MEMORY, text="MemoryError while an error was looked at")
        with contextlib.suppress(Exception):  # frames hold what the input was unfolded to
            traceback.clear_frames(error.__traceback__)
    values = vars_of(outcome)
    values.update(cpu_s=time.process_time() - before, peak_mb=_peak_mb())
    return Outcome(**values)


def vars_of(outcome: Outcome) -> dict[str, Any]:
    """The fields of an outcome."""
    return {"kind": outcome.kind, "text": outcome.text, "place": outcome.place}


def _peak_mb() -> int:
    """Largest resident memory since `_forget_peak`, also of a process that the child started."""
    found = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return max(int(found[0]), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) >> 10


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _answer(answers: BinaryIO, value: Outcome | None) -> None:
    pickle.dump(value, answers)
    answers.flush()


def main() -> None:
    """Serve the target that the command line names."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    faulthandler.register(STACKS, all_threads=True)
    module, name = sys.argv[1:]
    target: Target = importlib.import_module(module).TARGETS[name]
    libraries = _address_space() if target.torch and importlib.import_module("torch") else 0
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES + libraries, MOST_BYTES + libraries))
    serve(target, sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
