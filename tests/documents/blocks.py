"""Fenced blocks of the documents, and the commands of ours that stand in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trackmill.jobs.main import COMMANDS

ROOT = Path(__file__).parents[2]
OURS = [ROOT / "README.md", ROOT / "infra" / "README.md", ROOT / "CONTRIBUTING.md"]
DOCUMENTS = [*OURS, *sorted(p for p in (ROOT / "docs").rglob("*.md") if "generated" not in p.parts)]
SHELL = {"", "console", "bash", "sh"}
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MODULES = {module: name for name, (module, _) in COMMANDS.items()}


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Args:
        document: path from the root.
        line: where its text begins, from 1.
        language: what stands behind the fence.
        text: what is in it.
    """

    document: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """All blocks of all documents in one of these languages."""
    found = []
    for path in DOCUMENTS:
        text = path.read_text()
        for match in _FENCE.finditer(text):
            language = match[1].strip()
            if language in languages:
                line = text[: match.start(2)].count("\n") + 1
                found.append(Block(path.relative_to(ROOT).as_posix(), line, language, match[2]))
    return found


@dataclass(frozen=True)
class Command:
    """A command of ours as a document shows it.

    Args:
        block: where it stands.
        name: of the command, such as `mine`.
        words: its arguments.
        whole: False where `...` stands for more.
    """

    block: Block
    name: str
    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return f"{self.block}: trackmill {self.name} {' '.join(self.words)[:60]}"


def commands(block: Block) -> Iterator[Command]:
    """The commands in a block of shell, in their order."""
    for line in re.sub(r" *\\\n *", " ", block.text).splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # an apostrophe in what a program prints
            continue
        yield from _commands(block, words)


def _commands(block: Block, words: list[str]) -> Iterator[Command]:
    for place, word in enumerate(words):
        script = re.fullmatch(r"(?:.*/)?jobs/(\w+)\.py", word)
        if script and script[1] in _MODULES:
            name, rest = _MODULES[script[1]], words[place + 1 :]
        elif re.fullmatch(r"(?:.*/)?trackmill", word) and words[place + 1 : place + 2] and words[place + 1] in COMMANDS:
            name, rest = words[place + 1], words[place + 2 :]
        else:
            continue
        end = next((at for at, each in enumerate(rest) if re.fullmatch(r"[&|;<>]+.*|done;?", each)), len(rest))
        arguments = [each.removesuffix(";") for each in rest[:end]]
        whole = "..." not in arguments
        yield Command(block, name, tuple(each for each in arguments if each != "..."), whole)
        return
