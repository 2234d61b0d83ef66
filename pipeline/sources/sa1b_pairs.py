"""Pictures and JSON files of SA-1B in folders as columns: eleven million pairs without an object for each.

The listing is sorted, so what shares a stem stands together; that fails only where another file or a folder is called
like the stem and a dot, and then `pair_files` gives up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from trackmill.pipeline.sources.apart import pair_apart
from trackmill.pipeline.sources.item_columns import file_rows
from trackmill.pipeline.storage.listing import Listing

_OFFICIAL = r"(^|/)sa_\p{Nd}+$"
_MOST_SINGLES = 200_000
"""Pictures without a JSON, and JSON files without a picture, that are looked for in other folders as objects."""


@dataclass(slots=True)
class Pairs:
    """What `pair_files` found.

    Args:
        apart: the JSON file of each picture that has it in another folder.
        notes_apart: those JSON files' stems.
        any_json: whether there is an annotation at all.
    """

    apart: dict[str, str] = field(default_factory=dict)
    notes_apart: set[str] = field(default_factory=set)
    any_json: bool = False


@dataclass(frozen=True, slots=True)
class _Rows:
    """Stems, and the places of the picture and of the JSON of each among `uris`, -1 where there is none."""

    uris: pa.Array
    stems: pa.Array
    picture_places: np.ndarray
    note_places: np.ndarray

    @property
    def pictures(self) -> pa.Array:
        return self._taken(self.picture_places)

    @property
    def notes(self) -> pa.Array:
        return self._taken(self.note_places)

    def _taken(self, places: np.ndarray) -> pa.Array:
        return self.uris.take(pa.array(places, mask=places < 0))

    def used(self, keep: np.ndarray) -> pa.Array:
        """The files of some stems, in the order of the listing."""
        mask = np.zeros(len(self.uris), bool)
        for places in (self.picture_places, self.note_places):
            mask[places[keep & (places >= 0)]] = True
        return self.uris.filter(pa.array(mask))


def pair_files(listing: Listing, explicit: bool) -> Pairs | None:
    """Look through a listing once for what does not stand beside its partner.

    Args:
        listing: of all files.
        explicit: whether pictures of any name are meant.

    Returns:
        None where names are such that columns will not do.
    """
    found = Pairs()
    bare: dict[str, str] = {}
    lone: dict[str, str] = {}
    last = pa.array([], pa.string())
    for rows in _paired(listing, explicit):
        if _are_parted(pa.concat_arrays([last, rows.stems])):
            return None
        last = rows.stems[-1:]
        found.any_json |= bool((rows.note_places >= 0).any())
        if (rows.picture_places < 0).any():
            alone = rows.pictures.is_null()
            lone.update(zip(rows.stems.filter(alone).to_pylist(), rows.notes.filter(alone).to_pylist()))
            if len(lone) > _MOST_SINGLES:
                return None
    for rows in _paired(listing, explicit) if lone else ():
        if (rows.note_places < 0).any():
            alone = rows.notes.is_null()
            bare.update(zip(rows.stems.filter(alone).to_pylist(), rows.pictures.filter(alone).to_pylist()))
            if len(bare) > _MOST_SINGLES:
                return None
    for notes, stem in pair_apart(bare, lone).items() if bare and lone else ():
        found.apart[bare[stem]] = lone[notes]
        found.notes_apart.add(notes)
    return found


def _are_parted(stems: pa.Array) -> bool:
    """Whether files of one stem may have others between them: `a.jpg`, `a.jpg_masks/0.jpg`, `a.json`."""
    back = pc.less(stems[1:], stems[:-1])
    if not pc.any(back).as_py():
        return False
    before, after = (each.filter(back).to_pylist() for each in (stems[:-1], stems[1:]))
    return any(one.startswith(f"{other}.") for one, other in zip(before, after))


def pair_items(
    listing: Listing, found: Pairs, explicit: bool, source: str
) -> Iterator[tuple[pa.RecordBatch, pa.Array]]:
    """The items of a listing, a lot at a time, each with the files that it takes.

    Args:
        listing, explicit: as in `pair_files`.
        found: what that says.
        source: name of the source.
    """
    for rows in _paired(listing, explicit):
        keep = np.ones(len(rows.stems), bool)
        if found.notes_apart:
            keep &= np.array([stem not in found.notes_apart for stem in rows.stems.to_pylist()], bool)
        if explicit:
            named = pc.match_substring_regex(rows.stems, _OFFICIAL)
            keep &= (rows.picture_places >= 0) | named.to_numpy(zero_copy_only=False)
        stems, pictures, notes = (each.filter(pa.array(keep)) for each in (rows.stems, rows.pictures, rows.notes))
        used = rows.used(keep)
        if found.apart:
            far = [found.apart.get(picture or "") for picture in pictures.to_pylist()]
            notes = pa.array([own or other for own, other in zip(notes.to_pylist(), far)], pa.string())
            used = pa.concat_arrays([used, pa.array([each for each in far if each], pa.string())])
        # Named after its picture even where that is missing, so that it is the same item once it is there.
        uris = pc.fill_null(pictures, pc.binary_join_element_wise(stems, "jpg", "."))
        names = [stem.rsplit("/", 1)[-1] for stem in stems.to_pylist()]
        batch = file_rows(source, uris, uris, names, _details(notes, pictures))
        yield batch, used


def _details(notes: pa.Array, pictures: pa.Array) -> pa.Array:
    plain = notes.null_count == pictures.null_count == 0
    if plain and not pc.any(pc.match_substring_regex(notes, r'["\\]')).as_py():
        return pc.binary_join_element_wise('{"json":"', notes, '"}', "")
    made = []
    for note, picture in zip(notes.to_pylist(), pictures.to_pylist()):
        details: dict[str, Any] = {"json": note} if note is not None else {}
        missing = {"picture": False} if picture is None else {}
        made.append(orjson.dumps(details | missing, option=orjson.OPT_SORT_KEYS))
    return pa.array([each.decode() for each in made], pa.string())


def _paired(listing: Listing, explicit: bool) -> Iterator[_Rows]:
    """What shares a stem, a lot at a time; the last stem of a lot waits for the next one."""
    waiting = _Files(pa.array([], pa.string()), pa.array([], pa.string()), pa.array([], pa.bool_()))
    for batch in listing.batches():
        files = waiting.then(_pictures_and_notes(batch["uri"], explicit))
        if not len(files.uris):
            continue
        last = int(pc.index(files.stems, files.stems[-1]).as_py())
        waiting = files.slice(last)
        if last:
            yield _rows(files.slice(0, last))
    if len(waiting.uris):
        yield _rows(waiting)


@dataclass(frozen=True, slots=True)
class _Files:
    """Pictures and JSON files, with their names without the suffix."""

    uris: pa.Array
    stems: pa.Array
    is_json: pa.Array

    def then(self, other: _Files) -> _Files:
        pairs = ((self.uris, other.uris), (self.stems, other.stems), (self.is_json, other.is_json))
        return _Files(*(pa.concat_arrays(pair) for pair in pairs))

    def slice(self, begin: int, length: int | None = None) -> _Files:
        return _Files(*(each.slice(begin, length) for each in (self.uris, self.stems, self.is_json)))


def _pictures_and_notes(uris: pa.Array, explicit: bool) -> _Files:
    """Those of the files that may be one of a pair. Suffixes are cut off by their length: a fifth of a regex's time."""
    suffix = pc.ascii_lower(pc.utf8_slice_codeunits(uris, -5))
    is_json, short = pc.equal(suffix, ".json"), pc.ends_with(suffix, ".jpg")
    keep = pc.or_(is_json, pc.or_(short, pc.equal(suffix, ".jpeg")))
    if not pc.all(keep).as_py():
        uris, is_json, short = (each.filter(keep) for each in (uris, is_json, short))
    stems = pc.if_else(short, pc.utf8_slice_codeunits(uris, 0, -4), pc.utf8_slice_codeunits(uris, 0, -5))
    if not explicit:
        named = pc.match_substring_regex(stems, _OFFICIAL)
        uris, stems, is_json = (each.filter(named) for each in (uris, stems, is_json))
    return _Files(uris, stems, is_json)


def _rows(files: _Files) -> _Rows:
    starts = np.append(True, pc.not_equal(files.stems[1:], files.stems[:-1]).to_numpy(zero_copy_only=False))
    group = np.cumsum(starts) - 1
    is_json = files.is_json.to_numpy(zero_copy_only=False)
    columns = []
    for wanted in (~is_json, is_json):
        rows = np.flatnonzero(wanted)
        places = np.full(group[-1] + 1, -1, np.int64)
        places[group[rows]] = rows  # of several the last one, as in a dictionary
        columns.append(places)
    return _Rows(files.uris, files.stems.filter(pa.array(starts)), *columns)
