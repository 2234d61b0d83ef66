"""Pieces of Markdown that the generated pages are put together from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def code(text: str) -> str:
    """As inline code, whatever backticks are in it."""
    fence = "`" * (max((len(run) for run in text.split("`") if not run), default=0) + 1)
    return f"{fence}{text}{fence}" if "`" not in text else f"`` {text} ``"


def anchor(name: str) -> str:
    """What a link may point at: in attributes of Markdown a full stop would begin something else."""
    return name.replace(".", "-")


def cell(text: str) -> str:
    """Text that may stand in a cell of a table: in one line, without bars; what looks like HTML stays text."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of a table."""
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join('---' for _ in head)} |"
    for row in rows:
        yield f"| {' | '.join(row)} |"
