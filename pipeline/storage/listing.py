"""A listing of any length: names and lengths of files as columns, sorted by name; many of them lie on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import overload

import pyarrow as pa
import pyarrow.compute as pc

from trackmill.pipeline.storage.list_files import FileInfo
from trackmill.pipeline.storage.sorted_batches import SortedBatches, Sorter

LISTING_SCHEMA = pa.schema([("uri", pa.string()), ("size", pa.int64())])
_AT_ONCE = 16_384


class Listing(Sequence[FileInfo]):
    """Files, each once, sorted by URI. A sequence of `FileInfo` for whoever wants objects; they are made as it is read.

    Args:
        rows: of `LISTING_SCHEMA`, sorted by `uri`.
        has_links: whether there may be links among the files, or on the way to them below the inputs.
    """

    def __init__(self, rows: SortedBatches, has_links: bool = True) -> None:
        self._rows = rows
        self.has_links = has_links

    @classmethod
    def of(cls, files: Iterable[FileInfo]) -> Listing:
        """Of files in any order."""
        made, waiting = ListingMaker(), iter(files)
        made.has_links = True
        while some := list(islice(waiting, _AT_ONCE)):
            made.add([file.uri for file in some], [file.size for file in some])
        return made.finish()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows, columns `uri` and `size`, some ten thousand at a time."""
        return self._rows.batches()

    def where(self, keep: Callable[[pa.RecordBatch], pa.Array]) -> Listing:
        """The files for which `keep` says so, given a batch of rows."""
        left = Sorter(LISTING_SCHEMA, "uri")
        for batch in self.batches():
            mask = keep(batch)
            if (count := mask.true_count) == len(batch):
                left.add(batch)
            elif count:
                left.add(batch.filter(mask))
        return Listing(left.finish(), self.has_links)

    def any_matches(self, pattern: str) -> bool:
        """Whether a regular expression (RE2's) matches within any URI."""
        return any(pc.any(pc.match_substring_regex(batch["uri"], pattern)).as_py() for batch in self.batches())

    def holds_below(self, folder: str) -> bool:
        """Whether a file lies below a folder, which ends in a slash."""
        return any(pc.any(pc.starts_with(batch["uri"], folder)).as_py() for batch in self.batches())

    def among(self, uris: Iterable[str]) -> dict[str, int]:
        """Which of some URIs are listed, and their lengths."""
        wanted = pa.array(sorted(set(uris)), pa.string())
        found: dict[str, int] = {}
        for batch in self.batches() if len(wanted) else ():
            here = batch.filter(pc.is_in(batch["uri"], wanted))
            found.update(zip(here["uri"].to_pylist(), here["size"].to_pylist()))
        return found

    def __len__(self) -> int:
        return self._rows.num_rows

    def __iter__(self) -> Iterator[FileInfo]:
        for batch in self.batches():
            yield from map(FileInfo, batch["uri"].to_pylist(), batch["size"].to_pylist())

    @overload
    def __getitem__(self, place: int) -> FileInfo: ...

    @overload
    def __getitem__(self, place: slice) -> list[FileInfo]: ...

    def __getitem__(self, place: int | slice) -> FileInfo | list[FileInfo]:
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            return list(islice(self, start, stop, step)) if step > 0 else list(self)[place]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        return next(islice(self, place % len(self), None))


class ListingMaker:
    """Collects what is listed. Of a file that is listed twice, the last length counts."""

    def __init__(self) -> None:
        self._sorter = Sorter(LISTING_SCHEMA, "uri", once=True)
        self.has_links = False

    def add(self, uris: Sequence[str], sizes: Sequence[int]) -> None:
        """Some files."""
        columns = [pa.array(uris, pa.string()), pa.array(sizes, pa.int64())]
        self._sorter.add(pa.RecordBatch.from_arrays(columns, schema=LISTING_SCHEMA))

    def add_rows(self, rows: pa.RecordBatch) -> None:
        """Some files, as rows of `LISTING_SCHEMA`."""
        self._sorter.add(rows)

    def finish(self) -> Listing:
        """All of them."""
        return Listing(self._sorter.finish(), self.has_links)
