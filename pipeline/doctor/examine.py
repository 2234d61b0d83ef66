"""Runs checks one after the other; none can hang the rest, and none that breaks hides what the others found."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from trackmill.pipeline.doctor.finding import Finding, Level
from trackmill.pipeline.storage.credentials import error_text

Look = Callable[[], Sequence[Finding]]


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Args:
        about: what it looks at.
        look: does so; called in a thread of its own.
    """

    about: str
    look: Look


@dataclass(slots=True)
class _Answer:
    findings: list[Finding] = field(default_factory=list)


def examine(checks: Sequence[Check], timeout_s: float) -> Iterator[Finding]:
    """The findings of all checks, as they come.

    Args:
        checks: run in this order.
        timeout_s: what each may take; a store or a cluster that does not answer is a finding, and its thread is left.
    """
    for check in checks:
        answer = _Answer()
        thread = threading.Thread(target=_look, args=(check, answer), name=f"doctor {check.about}", daemon=True)
        thread.start()
        thread.join(timeout_s)
        if thread.is_alive():
            yield Finding(
                about=check.about,
                level=Level.FAULT,
                said=f"no answer in {timeout_s:.0f} s",
                mend="see whether address, network and firewall let this machine reach it, or give it longer by "
                "--timeout",
            )
        else:
            yield from answer.findings


def _look(check: Check, answer: _Answer) -> None:
    try:
        answer.findings = list(check.look())
    except Exception as error:
        answer.findings = [
            Finding(
                about=check.about,
                level=Level.FAULT,
                said=f"could not be looked at: {type(error).__name__}: {error_text(error)}",
                mend="mend what the error names; the other checks are not touched by it",
            )
        ]
