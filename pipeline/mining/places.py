"""Items of two inputs, told by their places below the inputs' roots and by what they are read from."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence, Set
from functools import cached_property
from typing import Any

from trackmill.pipeline.console.words import counted
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.list_files import FileInfo
from trackmill.pipeline.storage.urls import dirname, has_magic, is_local
from trackmill.schemas.media import WorkItem

log = logging.getLogger("trackmill")

COMPARED = 8
"""Items of two roots whose bytes are compared; where some agree and others do not, all are."""

Contents = Callable[[WorkItem], str | None]
"""SHA-256 of what an item is read from; None where it cannot be read."""


def root_of_input(url: str, files: Container[str]) -> str:
    """The folder that an input's items are named below: a folder itself, of a file or glob the one that it lies in."""
    parts = url.split("/")
    magic = next((place for place, part in enumerate(parts) if has_magic(part)), None)
    if magic is not None and url not in files:
        return "/".join(parts[:magic])
    return dirname(url) if url in files else url


def as_spelt_now(
    planned: Set[str], planned_roots: Sequence[str], roots: Sequence[str], files: Iterable[FileInfo]
) -> frozenset[str]:
    """Planned files, each by every name that it has where the inputs lie now: another mount, a link, another copy.

    Args:
        planned: URIs of files.
        planned_roots: the inputs that they were found in.
        roots: the inputs of now.
        files: the listing of now.
    """
    listed = {file.uri for file in files}
    before = sorted({root_of_input(url, planned) for url in planned_roots}, key=len, reverse=True)
    here = {root_of_input(url, listed) for url in roots}
    names = set(planned)
    for uri in planned:
        root = next((root for root in before if uri.startswith(f"{root}/")), None)
        if root is not None:
            names.update(name for other in here if (name := other + uri.removeprefix(root)) in listed)
    return frozenset(names)


class LaterNames(Set[str]):
    """Names that are found out when somebody asks: those of millions of pictures, for which most sources never ask.

    Args:
        make: gives them.
    """

    def __init__(self, make: Callable[[], Set[str]]) -> None:
        self._make = make

    @cached_property
    def _names(self) -> Set[str]:
        return self._make()

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    @classmethod
    def _from_iterable(cls, names: Iterable[Any]) -> Any:
        return frozenset(names)


class Places:
    """Tells items by their place below the roots of two inputs, and by bytes.

    Args:
        roots: see `root_of_input`.
        sizes: bytes of each file that is listed now.
        contents: see `recognise`.
    """

    def __init__(self, roots: Iterable[str], sizes: Mapping[str, int], contents: Contents) -> None:
        self._roots = sorted(set(roots), key=len, reverse=True)
        self._sizes = sizes
        self._contents = contents

    def root(self, uri: str) -> str:
        """The innermost root that a file lies below; "" for none."""
        return next((root for root in self._roots if uri == root or uri.startswith(f"{root}/")), "")

    def __call__(self, new: Sequence[WorkItem], earlier: Sequence[WorkItem]) -> dict[str, WorkItem]:
        """Items of `new` that are in `earlier` under another root, by `source_id`."""
        if len(self._roots) < 2 or not new:
            return {}
        places: dict[tuple[str, str], list[WorkItem]] = defaultdict(list)
        for item in earlier:
            places[self._place(item)].append(item)
        pairs: dict[str, list[tuple[WorkItem, WorkItem]]] = defaultdict(list)
        for item in new:
            for twin in places.get(self._place(item), ()):
                if self.root(twin.uri) != self.root(item.uri) and self._may_be_same(item, twin):
                    pairs[self.root(twin.uri)].append((item, twin))
        same: dict[str, WorkItem] = {}
        for root, candidates in pairs.items():
            same |= self._compared(root, [pair for pair in candidates if pair[0].source_id not in same])
        return same

    def _place(self, item: WorkItem) -> tuple[str, str]:
        return item.source, item.source_id.removeprefix(self.root(item.uri))

    def _may_be_same(self, item: WorkItem, twin: WorkItem) -> bool:
        here, there = self._size(item.uri), self._size(twin.uri)
        return not here or not there or here == there

    def _size(self, uri: str) -> int:
        if uri not in self._sizes and is_local(uri) and os.path.isfile(uri):
            return os.path.getsize(uri)
        return self._sizes.get(uri, 0)

    def _compared(self, root: str, pairs: list[tuple[WorkItem, WorkItem]]) -> dict[str, WorkItem]:
        step = max(1, len(pairs) // COMPARED)
        answers = [self._agree(*pair) for pair in pairs[::step]]
        if True not in answers:
            if pairs and False not in answers:
                log.warning(
                    "%s: %s as some of %s, which cannot be read any more: taken for new",
                    redact(self.root(pairs[0][0].uri)),
                    counted(len(pairs), "item lies at the same place", "items lie at the same places"),
                    redact(root),
                )
            return {}
        if False in answers:
            pairs = [pair for pair in pairs if self._agree(*pair)]
        return {item.source_id: twin for item, twin in pairs}

    def _agree(self, item: WorkItem, twin: WorkItem) -> bool | None:
        """Whether two items have the same bytes; None where one of them cannot be read."""
        local = is_local(item.uri) and is_local(twin.uri) and os.path.exists(item.uri) and os.path.exists(twin.uri)
        if local and os.path.samefile(item.uri, twin.uri):
            return True
        here = self._contents(item)
        there = self._contents(twin) if here else None
        return here == there if here and there else None
