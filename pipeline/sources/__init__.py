"""Sources: what Trackmill can read, and which source takes which of the files it is given."""

from __future__ import annotations

from collections.abc import Sequence

from trackmill.pipeline.sources.base import ReadSettings, Source
from trackmill.pipeline.sources.images import SUFFIXES as PICTURE_SUFFIXES
from trackmill.pipeline.sources.images import Images
from trackmill.pipeline.sources.mot import Mot
from trackmill.pipeline.sources.sa1b import Sa1b
from trackmill.pipeline.sources.sav import Sav
from trackmill.pipeline.sources.video_files import SUFFIXES as VIDEO_SUFFIXES
from trackmill.pipeline.sources.video_files import VideoFiles
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import FileInfo, canonical, list_files
from trackmill.schemas.errors import InputError
from trackmill.schemas.media import WorkItem

SOURCES: dict[str, type[Source]] = {
    "sa1b": Sa1b,
    "sav": Sav,
    "mot": Mot,
    "videos": VideoFiles,
    "images": Images,
}
"""By name, in the order in which `auto` asks them: data sets first, so that their frames are not taken for pictures."""


def open_source(name: str, settings: ReadSettings) -> Source:
    """The source called `name`.

    Raises:
        ValueError: there is none.
    """
    if name not in SOURCES:
        raise InputError(f"unknown source {name!r}; known sources: {', '.join(SOURCES)}")
    return SOURCES[name](settings)


def list_inputs(urls: Sequence[str]) -> list[FileInfo]:
    """All files under some URLs (files, folders or globs), each once, sorted by URI.

    A single picture, video or tar that cannot be listed is in it all the same, with size 0: reading it will say why,
    and does not stop the rest.

    Raises:
        FileNotFoundError: there is nothing at an input.
        OSError: an input cannot be listed.
    """
    files: dict[str, FileInfo] = {}
    for url in urls:
        files.update((file.uri, file) for file in _list(url))
    return sorted(files.values())


def claim_files(
    listing: Sequence[FileInfo], source_name: str, settings: ReadSettings
) -> tuple[list[WorkItem], list[str]]:
    """Name the items in a listing.

    Args:
        listing: see `list_inputs`.
        source_name: the one source to ask, or `auto` for all of them in order, each taking what is left.
        settings: how items are going to be read; clips are cut by them.

    Returns:
        The items sorted by `source_id`, and the URIs that no source took.

    Raises:
        ValueError: unknown source, or not one file that a source can read.
    """
    names = list(SOURCES) if source_name == "auto" else [source_name]
    items: list[WorkItem] = []
    left = list(listing)
    for source in [open_source(name, settings) for name in names]:
        source.asked_for = source_name != "auto"
        claim = source.claim(left)
        items += claim.items
        left = [file for file in left if file.uri not in claim.used]
    if not items:
        raise InputError(_nothing_found(listing, source_name))
    items.sort(key=lambda item: item.source_id)
    assert len({item.source_id for item in items}) == len(items), "two items have the same source_id"
    return items, [file.uri for file in left]


def _list(url: str) -> list[FileInfo]:
    uri = canonical(url)
    try:
        return list_files(uri)
    except FileNotFoundError:
        if _names_one_file(uri):
            return [FileInfo(uri, 0)]
        raise FileNotFoundError(f"{redact(url)}: there is no such file or folder, or nothing matches") from None
    except OSError:
        if _names_one_file(uri):
            return [FileInfo(uri, 0)]
        raise


def _names_one_file(uri: str) -> bool:
    is_pattern = any(mark in uri for mark in "*?[")
    return not is_pattern and uri.lower().endswith((*PICTURE_SUFFIXES, *VIDEO_SUFFIXES, ".tar"))


def _nothing_found(listing: Sequence[FileInfo], source_name: str) -> str:
    looked_for = {
        "sa1b": "sa_N.jpg with sa_N.json, or sa_*.tar",
        "sav": "X.mp4 with X_manual.json or X_auto.json, or JPEGImages_24fps/ with Annotations_6fps/",
        "mot": "folders with img1/NNNNNN.jpg",
        "videos": f"files ending in {' '.join(VIDEO_SUFFIXES)}",
        "images": f"files ending in {' '.join(PICTURE_SUFFIXES)}",
    }
    wanted = looked_for.values() if source_name == "auto" else [looked_for[source_name]]
    shown = ", ".join(redact(file.uri) for file in listing[:3]) + (", ..." if len(listing) > 3 else "")
    found = f"in {len(listing)} files ({shown})" if listing else "because there is no file"
    return f"nothing to mine {found}; looked for: {'; '.join(wanted)}"
