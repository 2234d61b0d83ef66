"""Which picture of a listing an annotation file means, by the name that it writes.

Names are written with or without folders, with those of another machine, and with either slash; pictures lie beside
the annotations, in a folder called like their split (`train2017` for `instances_train2017.json`), or anywhere else in
the input.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from trackmill.pipeline.sources.images import SUFFIXES
from trackmill.pipeline.storage.urls import basename, dirname

_WORDS = re.compile(r"[a-z]+[0-9]*|[0-9]+")


class PictureNames:
    """The pictures of a listing.

    Args:
        uris: of all files; what does not end like a picture is passed over.
    """

    def __init__(self, uris: Iterable[str]) -> None:
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for uri in uris:
            if uri.lower().endswith(SUFFIXES):
                self._by_name[basename(uri).lower()].append(uri)

    def find(self, name: str, annotations: str, *, alone: bool = False) -> list[str]:
        """The pictures that a name may mean, none better than another; empty where there is none.

        Of several those are taken that share more folders with the name, then those in a folder called like the
        annotations, then those that lie nearest to them.

        Args:
            name: as written, `train2017/000000000009.jpg`.
            annotations: URI of the file that it stands in.
            alone: whether the last part of the name is enough, though folders in the name are others.
        """
        parts = _parts(name)
        found = self._by_name.get(parts[-1], []) if parts else []
        if not alone:
            found = [uri for uri in found if _shared_end(parts, uri) == len(parts)]
        if len(found) < 2:
            return found
        ranks = [(_shared_end(parts, uri), *_nearness(uri, annotations)) for uri in found]
        best = max(ranks)
        return sorted(uri for uri, rank in zip(found, ranks) if rank == best)

    def among(self, folders: Iterable[str], roots: Iterable[str] = ()) -> list[str]:
        """All pictures that lie in one of these folders themselves, or anywhere below one of the roots, sorted."""
        wanted, above = set(folders), tuple(f"{root}/" for root in roots)
        every = (uri for uris in self._by_name.values() for uri in uris)
        return sorted(uri for uri in every if dirname(uri) in wanted or uri.startswith(above))


def _parts(name: str) -> list[str]:
    parts = name.replace("\\", "/").lower().split("/")
    return [part for part in parts if part not in ("", ".")]


def _shared_end(parts: list[str], uri: str) -> int:
    shared = 0
    for wanted, there in zip(reversed(parts), reversed(uri.lower().split("/"))):
        if wanted != there:
            break
        shared += 1
    return shared


def _nearness(uri: str, annotations: str) -> tuple[int, int]:
    """How many words of the annotations' name a folder of the picture has, and how many folders both share."""
    folders, own = dirname(uri).split("/"), dirname(annotations).split("/")
    words = set(_WORDS.findall(basename(annotations).lower().rsplit(".", 1)[0]))
    shared = 0
    for here, there in zip(folders, own):
        if here != there:
            break
        shared += 1
    # Folders above both say nothing.
    return len(words & {word for folder in folders[shared:] for word in _WORDS.findall(folder.lower())}), shared
