"""From packaged media to a report, stage by stage: `python jobs/demo.py --output out/demo [--stage NAME]`."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.pipeline.console.choices import OneOf
from trackmill.pipeline.console.exit_codes import ExitCode
from trackmill.pipeline.console.job import Job
from trackmill.pipeline.console.leaving import leave
from trackmill.pipeline.console.options import JobParser, Options
from trackmill.pipeline.console.output import say
from trackmill.pipeline.console.words import duration
from trackmill.pipeline.demo.settings import STAGE_NAMES, DemoSettings
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.urls import canonical
from trackmill.schemas.config import build
from trackmill.schemas.errors import JobError

if TYPE_CHECKING:
    from trackmill.pipeline.demo.stages import Command

JOBS = Path(__file__).resolve().parent
OWN_PROCESS = ("mine_proposals", "train")
"""These start processes of their own. The others share this one: loading torch takes longer than their work."""


def add_options(p: JobParser) -> None:
    """Where to, and what of it."""
    folder = "the same one again goes on (default out/demo)"
    p.option("--output", default="out/demo", metavar="FOLDER", help=folder)
    stage = f"only this one, even where it is done already: {', '.join(STAGE_NAMES)} (default: all)"
    p.option("--stage", type=OneOf(STAGE_NAMES), metavar="NAME", help=stage)
    p.option("--executor", key="executor")
    p.option("--seed", key="seed")


def settings(options: Options) -> DemoSettings:
    """Of a command line."""
    return build(DemoSettings, options.values, redact(options.config) if options.config else "settings")


def run(options: Options) -> None:
    """Do what is not done yet, or one stage."""
    chosen = settings(options)
    canonical(options.output)  # an impossible place is found before any work is done

    from trackmill.pipeline.demo.stages import STAGES, Demo, is_done, run_stage, seconds_left

    demo = Demo(options.output, chosen)
    total, typical = 0.0, 0.0
    for number, stage in enumerate(STAGES):
        title = f"[{number + 1}/{len(STAGES)}] {stage.name}"
        if options.stage not in (None, stage.name):
            continue
        # The report is written anew in any case: it takes a second.
        if options.stage is None and stage is not STAGES[-1] and is_done(demo, number):
            say(f"{title}: done already")
            continue
        say(f"{title}: {stage.summary}")
        seconds = run_stage(demo, number, run_job)
        total, typical = total + seconds, typical + stage.typical_s
        left = 0.0 if options.stage else seconds_left(demo, number, total / typical)
        say(f"{title}: {seconds:,.0f} s{f', about {duration(left)} left' if left else ''}")
    say(f"done in {total:,.0f} s; to begin anew, remove {redact(demo.root)}")


def run_job(command: Command) -> None:
    """Print a command and run it.

    Raises:
        JobError: it did not end with 0; what went wrong it has printed itself.
        KeyboardInterrupt: it was stopped.
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
    if status == ExitCode.STOPPED:
        raise KeyboardInterrupt
    if status:
        raise JobError(f"jobs/{command.job}.py ended with status {status}")


JOB = Job(
    name="demo",
    description="Mine, chain, train, track, evaluate and report on media that ship inside packages.",
    add_options=add_options,
    run=run,
    settings="trackmill.pipeline.demo.settings:DemoSettings",
    resolve=settings,
    example="steps=200",
    goes_on="the same command goes on from here",
    extra="masa",
)
main = JOB.main

if __name__ == "__main__":
    leave(main())
