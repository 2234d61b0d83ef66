"""Which source takes which of the files that it is given."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from threading import Lock

import pyarrow as pa
import pyarrow.compute as pc

from trackmill.pipeline.console.progress_line import ProgressLine
from trackmill.pipeline.sources import AUTO, open_source, sources_of
from trackmill.pipeline.sources.base import ReadSettings, Source
from trackmill.pipeline.sources.item_columns import ItemSorter, items_of
from trackmill.pipeline.storage.credentials import dangling_link, protocol_of, redact
from trackmill.pipeline.storage.list_files import FileInfo
from trackmill.pipeline.storage.listed_chunks import Lot, list_lots
from trackmill.pipeline.storage.listing import Listing, ListingMaker
from trackmill.pipeline.storage.sorted_batches import SortedBatches
from trackmill.pipeline.storage.urls import canonical, has_magic, is_local
from trackmill.schemas.config import Settings
from trackmill.schemas.errors import InputError
from trackmill.schemas.keys import unit_of_part
from trackmill.schemas.media import WorkItem

PACKED = (".tar", ".tgz", ".tar.gz", ".zip")
"""Files that may hold others, by the end of their names in lower case."""

_AT_ONCE = 16
_MOST_OBJECTS = 1_000_000
"""Files that a source gets as a list of objects; of more, the objects are made whenever it goes through them."""

log = logging.getLogger("trackmill")


def list_inputs(urls: Sequence[str], source_name: str = AUTO, output: str = "") -> Listing:
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
    found = _Found()
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="list") as pool:  # a list of inputs may hold many URLs
        for _ in pool.map(lambda url: found.take(_list(url, suffixes)), urls):
            pass
    listing, data_sets = found.finish()
    if output in map(canonical, urls):
        raise InputError(f"{redact(output)}: is both input and output; give another --output, which may lie inside it")
    made = {root for root in data_sets if root and canonical(root) not in map(canonical, urls)}
    for root in sorted(made - {output}):
        log.warning("%s: a data set that mining made lies in the input; its files are left out", redact(root))
    roots = tuple(f"{root}/" for root in made | ({output} if output else set()))
    return _without(listing, roots)


class _Found:
    """Collects what several threads list, and says how far they are."""

    def __init__(self) -> None:
        self._files = ListingMaker()
        self._data_sets: set[str] = set()
        self._lock = Lock()
        self._progress = ProgressLine(0, "listed", things="objects")

    def take(self, lots: Iterable[Lot]) -> None:
        """All of one input."""
        for lot in lots:
            roots = {_data_set_of(uri) for uri in lot.uris if "receipts/" in uri}
            with self._lock:
                self._data_sets |= roots
                self._files.add(lot.uris, lot.sizes)
                self._files.has_links |= lot.links
                self._progress(len(lot.uris))

    def finish(self) -> tuple[Listing, set[str]]:
        """The listing, and the roots of data sets in it."""
        self._progress.close()
        return self._files.finish(), self._data_sets


def _without(listing: Listing, roots: tuple[str, ...]) -> Listing:
    """A listing without what lies below some folders."""
    inside = [any_of for any_of in roots if listing.holds_below(any_of)]
    if not inside:
        return listing

    def keep(batch: pa.RecordBatch) -> pa.Array:
        return pc.invert(reduce(pc.or_, [pc.starts_with(batch["uri"], root) for root in inside]))

    return listing.where(keep)


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
    listed = listing if isinstance(listing, Listing) else Listing.of(listing)
    claimed = claim_listing(listed, source_name, settings, config, planned)
    items = [item for batch in claimed.items.batches() for item in items_of(batch)]
    return items, [file.uri for file in claimed.left]


@dataclass(frozen=True, slots=True)
class Claimed:
    """What sources took of a listing.

    Args:
        items: rows of `ITEM_SCHEMA`, in the order of `source_id`.
        left: files that no source took.
    """

    items: SortedBatches
    left: Listing


def claim_listing(
    listing: Listing,
    source_name: str,
    settings: ReadSettings,
    config: Settings | None = None,
    planned: Set[str] = frozenset(),
    columns: bool = True,
) -> Claimed:
    """Name the items in a listing of any length.

    Args:
        listing, source_name, settings, config, planned: see `claim_files`.
        columns: whether sources may be asked for columns (`Source.claim_columns`); the items are the same either way.

    Raises:
        as `claim_files`.
    """
    explicit = source_name != AUTO
    items, left = ItemSorter(), listing
    for name, cls in [(source_name, None)] if explicit else sources_of(AUTO).items():
        if cls is not None and cls.needs and not left.any_matches(cls.needs):
            continue
        source = open_source(name, settings, config)
        source.explicit, source.planned = explicit, planned
        rest = source.claim_columns(left, items) if columns else None
        if rest is None:
            rest = _claim_objects(source, left, items)
        left = rest
    if not items.num_items:
        raise InputError(_nothing_to_mine(listing, sources_of(source_name).values()))
    claimed = Claimed(items.finish(), left)
    _check_names(claimed.items, sources_of(source_name))
    return claimed


def _claim_objects(source: Source, listing: Listing, items: ItemSorter) -> Listing:
    claim = source.claim(list(listing) if len(listing) <= _MOST_OBJECTS else listing)
    items.add(claim.items)
    used = claim.used
    if not used:
        return listing
    return listing.where(lambda batch: pa.array([uri not in used for uri in batch["uri"].to_pylist()], pa.bool_()))


def _check_names(items: SortedBatches, sources: Iterable[str]) -> None:
    known = pa.array(sorted(sources), pa.string())
    last = pa.array([], pa.string())
    for batch in items.batches(["source", "source_id"]):
        if not pc.all(ours := pc.is_in(batch["source"], known)).as_py():
            row = batch.filter(pc.invert(ours)).to_pylist()[0]
            raise ValueError(
                f"{row['source_id']}: an item of source {row['source']!r}, should be of {', '.join(known.to_pylist())}"
            )
        ids = pa.concat_arrays([last, batch["source_id"]])
        twice = pc.equal(ids[1:], ids[:-1])
        if pc.any(twice).as_py():
            place = twice.index(True).as_py() + 1
            source = batch["source"][place - len(last)].as_py()
            raise ValueError(f"{ids[place].as_py()}: two items of source {source} have this source_id")
        last = ids[-1:]


def _list(url: str, suffixes: tuple[str, ...]) -> Iterator[Lot]:
    uri = canonical(url)
    is_pattern = has_magic(uri)
    names_one_file = not is_pattern and uri.lower().endswith(suffixes)
    try:
        yield from list_lots(uri)
    except FileNotFoundError:
        if names_one_file:
            yield Lot([uri], [0])
            return
        gone = dangling_link(uri) if is_local(uri) else ""
        raise FileNotFoundError(gone or f"{redact(url)}: there is no such file or folder, or nothing matches") from None
    except OSError:
        if not names_one_file:
            raise
        yield Lot([uri], [0])


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
    advice, packed, query = "", False, False
    for name in map(str.lower, uris):
        packed = packed or name.endswith(PACKED)
        query = query or ("?" in name and protocol_of(name) in ("http", "https"))
    if packed:
        advice = "; --source webdataset reads pictures inside tars and zips"
    if query:
        advice += (
            "; what follows ? in a URL is no part of a name, and is taken only if it signs the URL (sig=, ...): "
            "give plain URLs, or download the files"
        )
    return advice
