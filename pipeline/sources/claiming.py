"""Which source takes which of the files that it is given."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor

from trackmill.pipeline.sources import AUTO, open_source, sources_of
from trackmill.pipeline.sources.base import ReadSettings, Source
from trackmill.pipeline.storage.credentials import dangling_link, protocol_of, redact
from trackmill.pipeline.storage.files import FileInfo, canonical, has_magic, is_local, list_files
from trackmill.schemas.config import Settings
from trackmill.schemas.errors import InputError
from trackmill.schemas.keys import unit_of_part
from trackmill.schemas.media import WorkItem

PACKED = (".tar", ".tgz", ".tar.gz", ".zip")
"""Files that may hold others, by the end of their names in lower case."""

_AT_ONCE = 16

log = logging.getLogger("trackmill")


def list_inputs(urls: Sequence[str], source_name: str = AUTO, output: str = "") -> list[FileInfo]:
    """All files under some URLs (files, folders or globs), each once, sorted by URI.

    A single file that a source may read and that cannot be listed is in it all the same, with size 0: reading it will
    say why, and does not stop the rest.

    Args:
        urls: files, folders or globs.
        source_name: see `claim_files`.
        output: root of the data set that is made, which may lie inside an input: its own files are no input. Other data
            sets inside an input are left out as well, and named in a warning.

    Raises:
        FileNotFoundError: there is nothing at an input.
        OSError: an input cannot be listed.
    """
    sources = [*sources_of(AUTO).values(), *sources_of(source_name).values()]
    suffixes = tuple({suffix for source in sources for suffix in source.suffixes})
    files: dict[str, FileInfo] = {}
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="list") as pool:  # a list of inputs may hold many URLs
        for listed in pool.map(lambda url: _list(url, suffixes), urls):
            files.update((file.uri, file) for file in listed)
    if output in map(canonical, urls):
        raise InputError(f"{redact(output)}: is both input and output; give another --output, which may lie inside it")
    made = {root for root in map(_data_set_of, files) if root and canonical(root) not in map(canonical, urls)}
    for root in sorted(made - {output}):
        log.warning("%s: a data set that mining made lies in the input; its files are left out", redact(root))
    roots = tuple(f"{root}/" for root in made | ({output} if output else set()))
    return sorted(file for uri, file in files.items() if not uri.startswith(roots))


def _data_set_of(uri: str) -> str:
    """Root of the data set that a receipt belongs to; "" for any other file."""
    folder, _, name = uri.rpartition("/")
    root, _, last = folder.rpartition("/")
    return root if last == "receipts" and unit_of_part(name) else ""


def claim_files(
    listing: Sequence[FileInfo],
    source_name: str,
    settings: ReadSettings,
    config: Settings | None = None,
    planned: Set[str] = frozenset(),
) -> tuple[list[WorkItem], list[str]]:
    """Name the items in a listing.

    Args:
        listing: see `list_inputs`.
        source_name: the one source to ask: a key of `SOURCES` or `my_package.my_module:Class`; or `auto` for all of
            `SOURCES` in order, each taking what is left.
        settings: how items are going to be read; clips are cut by them.
        config: settings of its own, of a source that has any.
        planned: pictures that the data set holds one by one already; they stay so.

    Returns:
        The items sorted by `source_id`, and the URIs that no source took.

    Raises:
        InputError: unknown source, or not one file that a source can read.
    """
    explicit = source_name != AUTO
    items: list[WorkItem] = []
    left = list(listing)
    for name in [source_name] if explicit else sources_of(AUTO):
        source = open_source(name, settings, config)
        source.explicit, source.planned = explicit, planned
        claim = source.claim(left)
        items += claim.items
        left = [file for file in left if file.uri not in claim.used]
    if not items:
        raise InputError(_nothing_to_mine(listing, sources_of(source_name).values()))
    items.sort(key=lambda item: item.source_id)
    _check_names(items, sources_of(source_name))
    return items, [file.uri for file in left]


def _check_names(items: Sequence[WorkItem], sources: Iterable[str]) -> None:
    known = set(sources)
    for item, following in zip(items, [*items[1:], None]):
        if item.source not in known:
            raise ValueError(f"{item.source_id}: an item of source {item.source!r}, should be of {', '.join(known)}")
        if following is not None and item.source_id == following.source_id:
            raise ValueError(f"{item.source_id}: two items of source {item.source} have this source_id")


def _list(url: str, suffixes: tuple[str, ...]) -> list[FileInfo]:
    uri = canonical(url)
    is_pattern = has_magic(uri)
    names_one_file = not is_pattern and uri.lower().endswith(suffixes)
    try:
        return list_files(uri)
    except FileNotFoundError:
        if names_one_file:
            return [FileInfo(uri, 0)]
        gone = dangling_link(uri) if is_local(uri) else ""
        raise FileNotFoundError(gone or f"{redact(url)}: there is no such file or folder, or nothing matches") from None
    except OSError:
        if names_one_file:
            return [FileInfo(uri, 0)]
        raise


def _nothing_to_mine(listing: Sequence[FileInfo], sources: Iterable[type[Source]]) -> str:
    shown = ", ".join(redact(file.uri) for file in listing[:3]) + (", ..." if len(listing) > 3 else "")
    seen = (
        f"in {len(listing)} files ({shown})"
        if listing
        else "because there is no file (hidden ones, .NAME, do not count)"
    )
    wanted = "; ".join(source.looked_for or source.name for source in sources)
    return f"nothing to mine {seen}; looked for: {wanted}{packed_advice(file.uri for file in listing)}"


def packed_advice(uris: Iterable[str]) -> str:
    """What to say of files that no source took, if there are tars or zips among them, or URLs with a query."""
    names = [uri.lower() for uri in uris]
    advice = ""
    if any(name.endswith(PACKED) for name in names):
        advice = "; --source webdataset reads pictures inside tars and zips"
    if any("?" in name and protocol_of(name) in ("http", "https") for name in names):
        advice += (
            "; what follows ? in a URL is no part of a name, and is taken only if it signs the URL (sig=, ...): "
            "give plain URLs, or download the files"
        )
    return advice
