"""Look at packages, GPU, disks, memory, stores and Ray before a long job does: `python jobs/doctor.py --output URL`."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.pipeline.console.choices import OneOf
from trackmill.pipeline.console.exit_codes import ExitCode
from trackmill.pipeline.console.job import Job
from trackmill.pipeline.console.leaving import leave
from trackmill.pipeline.console.options import JobParser, Options, positive
from trackmill.pipeline.console.output import clean, say
from trackmill.pipeline.console.words import counted

_JOBS = ("mine", "train")


def add_options(p: JobParser) -> None:
    """What the job will use."""
    add = p.option
    add("--data", nargs="+", default=[], metavar="URL", help="what will be read: inputs of mining, a mined data set")
    add("--output", default="", metavar="URL", help="where it will write; 8 MB are written there, and removed")
    add("--job", type=OneOf(_JOBS), default="mine", metavar="{mine,train}", help="what will run (default mine)")
    add("--workers", type=positive, default=0, metavar="N", help="actors or ranks on this machine")
    add("--timeout", type=positive, default=120, metavar="SECONDS", help="most that one check may take (default 120)")
    add("--json", action="store_true", help="print one JSON object for machines")


def run(options: Options) -> ExitCode:
    """Check one thing after the other, and say how to mend what is wrong."""
    import orjson

    from trackmill.pipeline.doctor.checks import checks_for
    from trackmill.pipeline.doctor.examine import examine
    from trackmill.pipeline.doctor.finding import Level

    checks = checks_for(options.job, options.workers, options.data, options.output, options.timeout)
    found = []
    for finding in examine(checks, options.timeout + 60):
        found.append(finding)
        if not options.json:
            say(f"{finding.level.name.lower():<8} {finding.about}: {clean(finding.said)}")
            if finding.mend:
                say(f"{'':<8} mend: {clean(finding.mend)}")
    worst = max((finding.level for finding in found), default=Level.OK)
    if options.json:
        say(orjson.dumps({"worst": worst.name.lower(), "findings": [each.plain() for each in found]}).decode())
    else:
        counts = Counter(finding.level for finding in found)
        told = ", ".join(
            counted(counts[level], level.name.lower()) for level in (Level.FAULT, Level.WARNING, Level.NOTE)
        )
        say(f"{len(found)} things looked at: {told}")
    return ExitCode.FAILED if worst is Level.FAULT else ExitCode.FINE


JOB = Job(
    name="doctor",
    description="Look at packages, GPU, disks, memory, stores and Ray before a long job does, and say how to mend "
    "what is wrong.",
    add_options=add_options,
    run=run,
)
main = JOB.main

if __name__ == "__main__":
    leave(main())
