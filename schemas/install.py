"""What to type where an optional package is missing."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def install(*extras: str) -> str:
    """The line that installs extras of Trackmill: in a checkout with its pinned versions, else by the package's name.

    Args:
        extras: names of `[project.optional-dependencies]` in pyproject.toml.
    """
    names = ",".join(extras)
    if all((_ROOT / name).is_file() for name in ("pyproject.toml", "constraints.txt")):
        return f'pip install -e ".[{names}]" -c constraints.txt'
    return f'pip install "trackmill[{names}]"'


def install_package(requirement: str) -> str:
    """The line that installs a package of somebody else: in a checkout with its pinned version."""
    pinned = " -c constraints.txt" if (_ROOT / "constraints.txt").is_file() else ""
    return f"pip install {requirement}{pinned}"
