"""The floors of the house: which room may import which, read from the imports of every file.

A room imports rooms on lower floors only. No file imports another in a circle. `models` knows neither Ray nor storage,
and opens files in the few places that are listed here. Inside the project everything is imported as `trackmill.*`.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("jobs", "models", "pipeline", "schemas")

FLOORS: tuple[tuple[str, ...], ...] = (
    ("schemas",),
    ("pipeline.storage",),
    (
        "models",
        "pipeline.shards",
        "pipeline.console",
        "pipeline.formats",
        "pipeline.media",
        "pipeline.metrics",
        "pipeline.ray_cluster",
        "pipeline.drain",
    ),
    ("pipeline.isolation", "pipeline.shots", "pipeline.vocabulary", "pipeline.workers"),
    ("pipeline.weights", "pipeline.inspect", "pipeline.sources"),
    ("pipeline.sidecars",),
    ("pipeline.audit", "pipeline.datasets", "pipeline.loader", "pipeline.mining", "pipeline.tracking"),
    ("pipeline.evaluation",),
    ("pipeline.tasks",),
    ("pipeline.training",),
    ("pipeline.export", "pipeline.demo", "pipeline.doctor", "pipeline.status", "pipeline.view"),
    ("jobs",),
)
"""From the ground up. Rooms on one floor do not import each other."""

FORBIDDEN = {
    "schemas": ("ray", "torch", "fsspec"),
    "models": ("ray", "fsspec", "s3fs", "requests", "urllib", "aiohttp"),
}
"""Top-level packages that a package never imports, not even inside a function."""

OPENS_FILES = {
    "models/weights/read.py",
    "models/weights/frozen_graph.py",
    "models/weights/records.py",
    "models/weights/torchscript.py",
    "models/detectors/hf_folder.py",
    "models/sam/sam2.py",
}
"""Modules in `models` that may read a file of this machine: readers of checkpoints and graphs, and of folders."""

CALLED_BY_NAME = {
    "models/detic/vocabulary.py": "trackmill.pipeline.vocabulary:read_vocabulary",
    "models/weights/read.py": "trackmill.pipeline.weights",
}
"""Modules in `models` that reach up to `pipeline`, and what for: `load` takes URLs, and only storage fetches."""


def files() -> Iterator[Path]:
    """Every module of the project."""
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    """`pipeline/media/rle.py` as `pipeline.media.rle`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def imports() -> dict[str, set[str]]:
    """By module, everything that it imports, anywhere in it; our own modules without `trackmill.`."""
    known = {module_name(path) for path in files()}
    graph: dict[str, set[str]] = {}
    for path in files():
        targets = graph.setdefault(module_name(path), set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                targets.update(alias.name.removeprefix("trackmill.") for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path.relative_to(ROOT)}: write imports in full"
                base = (node.module or "").removeprefix("trackmill.")
                for alias in node.names:
                    inner = f"{base}.{alias.name}"
                    targets.add(inner if inner in known else base)
    return graph


def room_of(module: str) -> tuple[int, str]:
    """Number of the floor and name of the room."""
    for number, rooms in enumerate(FLOORS):
        for room in rooms:
            if module == room or module.startswith(f"{room}."):
                return number, room
    raise AssertionError(f"{module} is in no room: give its folder a place in FLOORS")


def test_every_import_goes_down() -> None:
    upward = []
    for module, targets in imports().items():
        if module in PACKAGES or module == "pipeline":
            continue
        floor, room = room_of(module)
        for target in targets:
            if target.split(".")[0] not in PACKAGES or target in PACKAGES:
                continue
            below, other = room_of(target)
            if other != room and below >= floor:
                upward.append(f"{module} -> {target}")
    assert not upward, "imports that do not go down: " + ", ".join(sorted(upward))


def test_nothing_else_reaches_up_by_name() -> None:
    """An import by a name in quotes is none that the other tests see."""
    found = {}
    for path in files():
        relative = str(path.relative_to(ROOT))
        if relative.startswith(("models/", "schemas/")):
            for node in ast.walk(ast.parse(path.read_text())):
                text = node.value if isinstance(node, ast.Constant) else None
                if isinstance(text, str) and re.fullmatch(r"trackmill\.(pipeline|jobs)[\w.:]*", text):
                    found[relative] = text
    assert found == CALLED_BY_NAME


def test_no_file_imports_another_in_a_circle() -> None:
    own = imports()
    try:
        list(TopologicalSorter({name: targets & own.keys() for name, targets in own.items()}).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_that_stay_out(package: str) -> None:
    for module, targets in imports().items():
        if module.split(".")[0] == package:
            found = {target.split(".")[0] for target in targets} & set(FORBIDDEN[package])
            assert not found, f"{module} imports {', '.join(found)}"


def test_models_open_no_files() -> None:
    for path in files():
        relative = str(path.relative_to(ROOT))
        if not relative.startswith("models/") or relative in OPENS_FILES:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = node.func
                opens = isinstance(called, ast.Name) and called.id == "open"
                opens |= isinstance(called, ast.Attribute) and called.attr in ("read_bytes", "read_text", "write_bytes")
                assert not opens, f"{relative}:{node.lineno} opens a file; files are read in pipeline/storage"


def test_plain_names_are_not_imported() -> None:
    """`from models import ...` would find whatever package of that name lies on the path first."""
    for path in [*files(), *sorted((ROOT / "tests").rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] not in PACKAGES, f"{path.relative_to(ROOT)}: write trackmill.{name}"
