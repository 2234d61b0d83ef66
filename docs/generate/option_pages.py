"""The options of every command, out of the parser that reads them."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator

from generate.markdown import cell, code, table
from trackmill.jobs.main import COMMANDS


def option_page(command: str) -> str:
    """The page of one command.

    Args:
        command: what follows `trackmill`.
    """
    module, _ = COMMANDS[command]
    job = importlib.import_module(f"trackmill.jobs.{module}").JOB
    parser = job.parser()
    parser.prog = f"trackmill {command}"
    lines = [f"# `trackmill {command}`", "", f"{parser.description}", ""]
    lines += [f"The same as `python jobs/{module}.py`.", ""]
    lines += ["```text", _usage(parser), "```", ""]
    for group in parser._action_groups:
        actions = [each for each in group._group_actions if each.help != argparse.SUPPRESS]
        if actions:
            lines += [f"## {_title(group.title)}", ""]
            if group.description:
                lines += [group.description, ""]
            lines += [*_rows(parser, actions, command), ""]
    return "\n".join(lines)


def _usage(parser: argparse.ArgumentParser) -> str:
    before = len("usage: ")
    return "\n".join(line[before:] for line in parser.format_usage().rstrip().splitlines())


def _title(title: str | None) -> str:
    return {"positional arguments": "Arguments", "options": "Options"}.get(title or "", (title or "").capitalize())


def _rows(parser: argparse.ArgumentParser, actions: list[argparse.Action], command: str) -> Iterator[str]:
    formatter = parser._get_formatter()
    keys = getattr(parser, "keys", {})
    rows = []
    for action in actions:
        words = formatter._format_action_invocation(action)
        said = formatter._expand_help(action) if action.help else ""
        setting = code(keys[action.dest]) if action.dest in keys else ""
        anchor = (action.option_strings[-1] if action.option_strings else action.dest).lstrip("-")
        rows.append([f"[{cell(code(words))}]{{#{command}-{anchor}}}", cell(said), setting])
    if not any(row[2] for row in rows):
        return iter(table(["option", "what it does"], [row[:2] for row in rows]))
    return iter(table(["option", "what it does", "the setting it changes"], rows))
