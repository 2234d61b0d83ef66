"""Which classes of an open-vocabulary benchmark are base, and which are novel."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from trackmill.pipeline.evaluation.readers.coco_index import Category
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.formats.json_files import load_json
from trackmill.pipeline.formats.segmentations import brief
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import read_bytes

MAX_BYTES = 1 << 20
"""Size limit of a list of classes; real lists are far smaller."""

_NAMES = ("classes", "names", "CLASS", "CLASSES")
_BASE = ("base", "base_id", "base_ids")
_NOVEL = ("novel", "novel_id", "novel_ids")
_FORMS = (
    'a text file with one base class a line, a JSON {"base": [...], "novel": [...]} of names or of indices into a list '
    '"classes", or the class list of OVT-B (CLASS, base_id and novel_id in a .py file)'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Ids of the base and of the novel categories, the rule that split them, and notes for the report."""

    base: frozenset[int]
    novel: frozenset[int]
    rule: str
    notes: tuple[str, ...] = ()


def split_classes(categories: Sequence[Category], labels: Iterable[int], url: str | None, path: str) -> Split:
    """Split the categories into base and novel.

    Without a file, categories with `frequency` r are novel and all others base, as in MASA's and OVTrack's evaluation
    of open-vocabulary TAO. With a file, the base classes are those that it lists, by name; the novel ones are those
    that it lists, or all others where it lists none. OVT-B's list has its own order, so indices are never category ids.

    Args:
        categories: all categories of the ground truth.
        labels: ids of the evaluated categories.
        url: the file: text with one base class a line; JSON `{"base": [...], "novel": [...]}`, each a list of names, or
            of indices from 0 into a list `classes`; or a `.py` file that assigns such lists to `CLASS`, `base_id` and
            `novel_id`. It is parsed, never run.
        path: name of the ground truth, for errors.

    Raises:
        BadTracks: the file has none of these forms, or neither it nor the frequencies give a split.
    """
    if url is None:
        evaluated = set(labels)
        for category in categories:
            if category.id in evaluated and category.frequency is None:
                raise BadTracks(
                    f"{path}: category {category.name!r} has no frequency to tell base from novel by; give the base "
                    f"classes with --base-classes: {_FORMS}"
                )
        novel = frozenset(category.id for category in categories if category.frequency == "r")
        base = frozenset(category.id for category in categories) - novel
        return Split(base=base, novel=novel, rule="novel is frequency 'r', base all others")
    base_names, novel_names = _read(url)
    known = {category.name for category in categories}
    if not base_names & known:
        raise BadTracks(f"{redact(url)}: no base class in it is a category of the ground truth; expected {_FORMS}")
    notes = []
    unknown = sorted((base_names | (novel_names or set())) - known)
    if unknown:
        notes.append(f"{redact(url)}: {len(unknown)} classes are no category of the ground truth: {_some(unknown)}")
    base = frozenset(category.id for category in categories if category.name in base_names)
    others = frozenset(category.id for category in categories) - base
    if novel_names is None:
        return Split(base=base, novel=others, rule=f"base is listed in {redact(url)}", notes=tuple(notes))
    novel = frozenset(category.id for category in categories if category.name in novel_names) - base
    left = [category.name for category in categories if category.id in set(labels) - base - novel]
    if left:
        notes.append(f"{redact(url)}: {len(left)} evaluated classes are neither base nor novel: {_some(left)}")
    return Split(base=base, novel=novel, rule=f"base and novel are listed in {redact(url)}", notes=tuple(notes))


def _read(url: str) -> tuple[set[str], set[str] | None]:
    """Names of base and novel classes; None where the file does not list the latter."""
    name = url.lower()
    if name.endswith((".json", ".json.gz")):
        content = load_json(url)
    else:
        try:
            text = read_bytes(url, max_bytes=MAX_BYTES).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise BadTracks(f"{redact(url)}: not UTF-8 text; expected {_FORMS}") from None
        if not name.endswith(".py"):
            return {line.strip() for line in text.splitlines() if line.strip()}, None
        content = _assigned(text, url)
    lists = content if isinstance(content, dict) else {}
    classes = next((lists[key] for key in _NAMES if key in lists), None)
    base = next(((key, lists[key]) for key in _BASE if key in lists), None)
    novel = next(((key, lists[key]) for key in _NOVEL if key in lists), None)
    if base is None:
        raise BadTracks(f"{redact(url)}: lists no base classes; expected {_FORMS}")
    return _class_names(*base, classes, url), None if novel is None else _class_names(*novel, classes, url)


def _assigned(text: str, url: str) -> dict[str, Any]:
    """The class lists that Python source assigns, read as literals; nothing is run."""
    lists = {}
    try:
        for statement in ast.parse(text).body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                name = statement.targets[0].id
                if name in _NAMES + _BASE + _NOVEL:
                    lists[name] = ast.literal_eval(statement.value)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise BadTracks(f"{redact(url)}: not plain lists in Python; expected {_FORMS}") from None
    return lists


def _class_names(key: str, listed: Any, classes: Any, url: str) -> set[str]:
    if not isinstance(listed, (list, tuple)):
        raise BadTracks(f"{redact(url)}: {key}: should be a list, found {brief(listed)}")
    names = set()
    for place, entry in enumerate(listed):
        is_index = type(entry) is int and isinstance(classes, (list, tuple)) and 0 <= entry < len(classes)
        name = classes[entry] if is_index else entry
        if type(name) is not str:
            raise BadTracks(
                f"{redact(url)}: {key}[{place}]: should be the name of a class, or an index from 0 into "
                f"{' or '.join(_NAMES[:3])}, found {brief(entry)}"
            )
        names.add(name)
    return names


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
