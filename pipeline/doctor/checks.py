"""Which checks there are: those of the machine always, those of stores for the URLs that are given."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from trackmill.pipeline.doctor.accelerator import check_accelerator
from trackmill.pipeline.doctor.cluster import check_cluster
from trackmill.pipeline.doctor.compiler import check_compiler
from trackmill.pipeline.doctor.examine import Check
from trackmill.pipeline.doctor.machine import check_machine
from trackmill.pipeline.doctor.packages import check_packages
from trackmill.pipeline.doctor.store import check_input, check_output


def checks_for(job: str, workers: int, data: Sequence[str], output: str, timeout_s: float) -> list[Check]:
    """All checks for a job.

    Args:
        job: `mine` or `train`.
        workers: see `check_machine`.
        data: URLs that it reads.
        output: URL that it writes to; "" where it is not known yet.
        timeout_s: what a check may take that asks another process.
    """
    checks = [
        Check("packages", check_packages),
        Check("gpu", partial(check_accelerator, timeout_s)),
        Check("machine", partial(check_machine, job, workers, output)),
        Check("ray", partial(check_cluster, timeout_s)),
    ]
    if job == "train":
        checks.append(Check("deepspeed", check_compiler))
    checks += [Check("data", partial(check_input, url)) for url in data]
    if output:
        checks.append(Check("output", partial(check_output, output)))
    return checks
