"""Completion in shells: `trackmill --completion bash` prints a script that knows all jobs, options and choices."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import shtab

from trackmill.pipeline.console.choices import OneOf
from trackmill.pipeline.console.options import JobParser

SHELLS = tuple(shtab.SUPPORTED_SHELLS)
_PLACES = ("FILE", "FOLDER", "URL", "ROOT", "PNG", "NAME.csv")


def completion_script(shell: str, jobs: Mapping[str, tuple[JobParser, str]]) -> str:
    """The script that a shell reads.

    Args:
        shell: one of `SHELLS`.
        jobs: options of a job, and what it does, by name.
    """
    program = argparse.ArgumentParser(prog="trackmill")
    program.add_argument("--version", action="version", version="")
    commands = program.add_subparsers()
    for name, (parser, what) in jobs.items():
        for action in parser._actions:
            _complete_values(action)
        # argparse would make a parser of its own here; the job's takes its place.
        commands.add_parser(name, help=what)
        commands._name_parser_map[name] = parser
    script: str = shtab.complete(program, shell)
    return script


def _complete_values(action: Any) -> None:
    if isinstance(action.type, OneOf):
        action.choices = action.type.names
    elif action.metavar in _PLACES:
        action.complete = shtab.FILE
