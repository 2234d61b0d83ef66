"""What a fuzz target is: small valid files, and what Trackmill makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trackmill.schemas.errors import InputError

Files = dict[str, bytes]
"""A small folder: contents by relative path."""

Mutator = Callable[[Any, bytes], bytes]
"""Changes the contents of one file, all choices drawn from a `random.Random`."""


class Refused(InputError):
    """What was told about an input that was not raised: reasons of quarantined items, faults that a check lists.

    Args:
        lines: each is judged like the text of an error.
    """

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class Broken(AssertionError):
    """The program did what it must never do, as a target found by looking; counts like a traceback."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One format, or one job, that reads what strangers may have written.

    Args:
        name: what `--target` says.
        seeds: makes the valid inputs. Kilobytes, by code, always the same.
        run: reads an input from a folder and returns what was understood, for comparison with what the seed gave. What
            it returns may hold arrays, tensors, tables and dataclasses, but nothing that differs between two runs.
        mutated: patterns of the files that are mutated; the others stay whole.
        covered: which changes a checksum covers: `none`; `bytes`: damage to bytes, but not a file written anew with
            its checksum; `all`. A covered change must not go unnoticed.
        others: classes of errors that are an answer as well.
        about: names that an error may give instead of a file's, such as the key of a setting.
        share: how many inputs the test suite tries.
        most_cpu_s: an input that takes more is a hang. Far above what any takes, also on a slow machine.
        rename: share of the inputs in which a file is renamed.
        torch: whether it needs PyTorch, whose libraries alone take gigabytes of address space; they do not count.
    """

    name: str
    seeds: Callable[[], list[Files]]
    run: Callable[[Path], object]
    mutated: tuple[str, ...] = ("*",)
    covered: Literal["none", "bytes", "all"] = "none"
    others: tuple[type[BaseException], ...] = ()
    about: tuple[str, ...] = ()
    share: int = 60
    most_cpu_s: float = 30.0
    rename: float = 0.0
    torch: bool = False


def files_of(folder: Path) -> Files:
    """All files below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def write_files(files: Files, folder: Path) -> None:
    """Write them below a folder; a name that this file system cannot hold is left out."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
