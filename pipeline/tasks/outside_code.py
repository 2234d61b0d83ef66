"""The files that somebody's own task is written in: a run that goes on after they were changed says so."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from trackmill.pipeline.console.blame import is_installed


def outside_code(classes: Iterable[type]) -> dict[str, str]:
    """SHA-256 of the files that classes, their bases, and what was imported from beside them are written in.

    Neither ours nor what is installed counts.

    Returns:
        by the name of the module; of a class in a package all modules of the package that are imported.
    """
    own = {name for each in classes for base in each.__mro__ if _file(name := base.__module__) is not None}
    packages = {name.partition(".")[0] for name in own}
    folders = {file.parent for name in own if "." not in name and (file := _file(name)) is not None}
    digests = {}
    for name in sorted(sys.modules):
        file = _file(name)
        if file is None or not (name.partition(".")[0] in packages or file.parent in folders):
            continue
        try:
            digests[name] = hashlib.sha256(file.read_bytes()).hexdigest()
        except OSError:
            continue  # of a zip, or gone since it was imported
    return digests


def _file(name: str) -> Path | None:
    """Where a module is written, if it is somebody's own."""
    found = getattr(sys.modules.get(name), "__file__", None)
    if not isinstance(found, str) or name.partition(".")[0] in ("trackmill", "__main__"):
        return None
    file = Path(found).resolve()
    return None if is_installed(file) or is_installed(Path(found)) else file


def changed_code(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Names of the modules whose file is another one now, of those that are in both."""
    return [name for name, digest in now.items() if before.get(name, digest) != digest]
