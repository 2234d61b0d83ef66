"""The documents in docs/ agree with the program: commands are read by their jobs, messages and tests exist."""

from __future__ import annotations

import importlib
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.infra.manifests import INFRA, ROOT, read
from trackmill.jobs.main import COMMANDS

DOCS = ROOT / "docs"
RUNBOOK = (DOCS / "runbook.md").read_text()
CASES = re.split(r"^## ", RUNBOOK, flags=re.MULTILINE)[1:]
ALERTS = ("No progress", "Quarantine", "Worker deaths", "Model idle", "Checkpoint old", "Disk full")


def commands() -> list[tuple[str, str]]:
    """Every line of a block of code in docs/ and infra/README.md that begins with a command, continued ones joined."""
    found = []
    for path in (*sorted(DOCS.glob("*.md")), INFRA / "README.md"):
        for block in re.findall(r"^```\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = line.partition("  #")[0].strip()
                if words and re.match(r"(trackmill|ray job submit|sbatch) ", words):
                    found.append((path.name, words))
    return found


@pytest.mark.parametrize(("file", "line"), commands())
def test_every_command_is_one_that_its_job_takes(file: str, line: str) -> None:
    words = shlex.split(line)
    if words[0] == "ray":
        words = words[words.index("--") + 1 :]
        assert words[0] == "python"
        words = ["trackmill", by_script(words[1]), *words[2:]]
    elif words[0] == "sbatch":
        script = next(position for position, word in enumerate(words) if word.endswith(".sbatch"))
        path, given = ROOT / words[script], words[script + 1 :]
        assert path.exists(), path
        if path.stem == "ray":
            words = ["trackmill", by_script(given[0]), *given[1:]]
        else:
            (job,) = set(re.findall(r"jobs/\w+\.py", path.read_text()))
            words = ["trackmill", by_script(job), "--output", "x", *given]
            if by_script(job) == "train" and "--recipe" not in given:
                words += ["--recipe", "masa_r50"]
    name = words[1]
    assert name in COMMANDS, line
    read(job_of(name), words[2:])


def by_script(script: str) -> str:
    """Name of the command whose code a script is."""
    (name,) = [name for name, (module, _) in COMMANDS.items() if module == Path(script).stem]
    return name


def job_of(name: str) -> Any:
    """The job of a command."""
    return importlib.import_module(f"trackmill.jobs.{COMMANDS[name][0]}").JOB


def test_there_are_commands() -> None:
    assert len(commands()) > 20


PLACEHOLDER = re.compile(r"my-bucket|my-registry|vision-production|registry\.example\.com|123456789012|0{17}")
NEAR = 32
"""Lines after a mark that may belong to it: a command line, a list of images."""


def marks(path: Path) -> list[int]:
    """Numbers of the lines that a user has to change; a sentence about such lines is none."""
    return [
        number for number, line in enumerate(path.read_text().splitlines()) if re.search(r"(?<!marked )CHANGE", line)
    ]


def test_the_list_of_lines_to_change_is_whole() -> None:
    section = (INFRA / "README.md").read_text().partition("## What to change")[2].partition("\n## ")[0]
    listed = {name: int(number) for name, number in re.findall(r"^\| `([^`]+)` \| (\d+) \|", section, re.MULTILINE)}
    files = [path for path in INFRA.rglob("*") if path.is_file() and path.suffix != ".md"]
    assert listed == {path.relative_to(INFRA).as_posix(): len(marks(path)) for path in files if marks(path)}


def test_what_stands_for_the_users_own_is_marked() -> None:
    for path in INFRA.rglob("*"):
        if path.is_file() and path.suffix in (".yaml", ".sbatch", ".sh"):
            for number, line in enumerate(path.read_text().splitlines()):
                if PLACEHOLDER.search(line):
                    assert any(number - NEAR <= mark <= number for mark in marks(path)), f"{path}:{number + 1}: {line}"


def test_the_runbook_has_twenty_cases_and_those_of_the_alerts() -> None:
    titles = [case.partition("\n")[0] for case in CASES]
    assert len(titles) >= 20 and set(ALERTS) <= set(titles)
    for case in CASES:
        for part in ("**You see**", "**It means**", "**Do**", "**Lost**", "**Test**"):
            assert part in case, f"{case.partition(chr(10))[0]}: no {part}"


def test_tests_that_the_runbook_names_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", RUNBOOK)
    assert len(named) >= len(CASES)
    for file, test in named:
        assert re.search(rf"^def {test}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file} has no {test}"


@cache
def said() -> str:
    """All text of the program, with sentences that stand on several lines joined."""
    text = "\n".join(
        path.read_text() for folder in ("jobs", "pipeline", "schemas") for path in sorted((ROOT / folder).rglob("*.py"))
    )
    return re.sub(r"""["']\s*\n\s*f?["']""", "", text)


@pytest.mark.parametrize("case", CASES, ids=[case.partition("\n")[0] for case in CASES])
def test_messages_that_the_runbook_quotes_are_the_programs(case: str) -> None:
    seen = case[case.index("**You see**") : case.index("**It means**")]
    for message in re.findall(r"`([^`]*)`", seen.replace("\n", " ")):
        if message in ("OUTPUT/hangs", "trackmill status", "plan/", "receipts/", "No space left on device"):
            continue
        for piece in filter(None, (piece.strip(" ,.;:()") for piece in message.split("..."))):
            assert piece in said(), f"no text of the program says {piece!r}"
