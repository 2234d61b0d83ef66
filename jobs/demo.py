"""Mine, train, track, evaluate and report on packaged media: `python jobs/demo.py --output out/demo [--stage NAME]`."""

from __future__ import annotations

import argparse
import importlib
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.pipeline.demo.settings import DemoSettings
from trackmill.pipeline.demo.stages import STAGES, Command, Demo, is_done, run_stage
from trackmill.pipeline.storage.credentials import redact, scrub
from trackmill.pipeline.storage.files import canonical
from trackmill.schemas.config import ConfigError, build, parse_toml

JOBS = Path(__file__).resolve().parent
OWN_PROCESS = ("mine_proposals", "train")
"""These start processes of their own. The others share this one: loading torch takes longer than their work."""
FAILED, USER_ERROR, INTERRUPTED = 1, 2, 130


class JobFailed(RuntimeError):
    """A job ended with another exit status than 0; what went wrong it has printed itself."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="demo.py", description=__doc__)
    names = [stage.name for stage in STAGES]
    p.add_argument(
        "--output", default="out/demo", metavar="FOLDER", help="the same one again goes on (default out/demo)"
    )
    p.add_argument("--stage", choices=names, help="only this one, even where it is done already (default: all)")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, e.g. steps=200")
    return p


def run(options: argparse.Namespace) -> int:
    """Do what is not done yet, or one stage; returns the exit code."""
    demo = Demo(options.output, settings(options.set))
    canonical(demo.root)  # an impossible place is told before any work is done
    total = 0.0
    for number, stage in enumerate(STAGES):
        title = f"[{number + 1}/{len(STAGES)}] {stage.name}"
        if options.stage not in (None, stage.name):
            continue
        # The report is written anew in any case: it takes a second.
        if options.stage is None and stage is not STAGES[-1] and is_done(demo, number):
            say(f"{title}: done already")
            continue
        say(f"{title}: {stage.told}")
        seconds = run_stage(demo, number, run_job)
        total += seconds
        say(f"{title}: {seconds:,.0f} s")
    say(f"done in {total:,.0f} s; to begin anew, remove {redact(demo.root)}")
    return 0


def settings(assignments: Sequence[str]) -> DemoSettings:
    """Of `--set`; values are TOML, a bare word is text."""
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {assignment!r}: should be KEY=VALUE, such as steps=200")
        try:
            values[key.strip()] = parse_toml(f"value = {text.strip()}", "--set")["value"]
        except ConfigError:
            values[key.strip()] = text.strip()
    return build(DemoSettings, values, "--set")


def run_job(command: Command) -> None:
    """Print a command and run it.

    Raises:
        JobFailed: it did not end with 0.
    """
    say(f"$ {command.line()}")
    if command.job not in OWN_PROCESS:
        status = importlib.import_module(f"trackmill.jobs.{command.job}").main(list(command.arguments))
    else:
        # In a group of its own: a terminal's Ctrl-C would reach it beside ours, and a second signal ends it unsaved.
        program = [sys.executable, str(JOBS / f"{command.job}.py"), *command.arguments]
        process = subprocess.Popen(program, process_group=0)
        try:
            status = process.wait()
        except BaseException:
            process.terminate()
            try:
                process.wait()
            finally:
                process.kill()
            raise
    if status:
        raise JobFailed(f"jobs/{command.job}.py ended with status {status}; the same command goes on from here")


def say(line: str) -> None:
    """One line for people, without credentials."""
    print(scrub(line), flush=True)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit status: 0 fine, 1 a job failed, 2 a mistake of the user or the storage, 130 stopped."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return run(options)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except JobFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {scrub(str(error))}", file=sys.stderr)
        return USER_ERROR


if __name__ == "__main__":
    sys.exit(main())
