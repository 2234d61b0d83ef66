"""Media in one folder and their annotations in another, as people sort them: `images/` beside `annotations/`.

Two folders belong together where their paths differ in one part that says so (`train/images/a` and
`train/annotations/a`), or where one of them is such a part below the other (`raw` and `raw/annotations`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from trackmill.pipeline.storage.urls import basename, dirname

_ANNOTATIONS = re.compile(r"^(ann|json|label|mask|meta|gt)", re.IGNORECASE)
_MEDIA = re.compile(r"^(im|jpe?g|pic|photo|frame|vid|mp4|raw)", re.IGNORECASE)

_Shape = tuple[str | None, ...]


def partner_folders(media: Iterable[str], annotations: Iterable[str]) -> dict[str, list[str]]:
    """For each folder of annotations the folders of media that it belongs to, sorted.

    Args:
        media, annotations: URIs of folders.
    """
    by_shape: dict[_Shape, list[tuple[str, str]]] = defaultdict(list)
    for folder in sorted(set(media)):
        for shape, part in _shapes(folder):
            by_shape[shape].append((part, folder))
    return {
        folder: sorted(
            other
            for shape, part in _shapes(folder)
            for other_part, other in by_shape[shape]
            if part != other_part and (_ANNOTATIONS.match(part) or _MEDIA.match(other_part))
        )
        for folder in sorted(set(annotations))
    }


def pair_apart(media: Mapping[str, str], annotations: Iterable[str]) -> dict[str, str]:
    """Which media annotations belong to that lie in another folder, by their equal names.

    Args:
        media: by stem (a URI without its suffix), whatever stands for it.
        annotations: stems.

    Returns:
        By stem of annotations, the stem of the media; left out where none or several are possible.
    """
    left = sorted(annotations)
    folders = partner_folders((dirname(stem) for stem in media), (dirname(stem) for stem in left))
    paired = {}
    for stem in left:
        found = [other for folder in folders[dirname(stem)] if (other := f"{folder}/{basename(stem)}") in media]
        if len(found) == 1:
            paired[stem] = found[0]
    return paired


def _shapes(folder: str) -> Iterator[tuple[_Shape, str]]:
    """The folder's parts with one of them left open, and what that one is; also open below it."""
    parts: _Shape = tuple(folder.split("/"))
    for place, part in enumerate(parts):
        yield (*parts[:place], None, *parts[place + 1 :]), part or ""
    yield (*parts, None), ""
