"""Pictures and JSON files of SA-1B in folders as columns: eleven million pairs without an object for each.

The listing is sorted, so what shares a stem stands together; that fails only where stems hold a dot, and then
`pair_files` gives up.
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

_PAIR = r"(?is)^(.*)[.](jpe?g|json)$"
_JSON = r"(?i)[.]json$"
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
    """Stems with the picture and the JSON of each, null where there is none."""

    stems: pa.Array
    pictures: pa.Array
    notes: pa.Array


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
    for rows in _paired(listing, explicit):
        if explicit and pc.any(pc.match_substring_regex(rows.stems, r"[.][^/]*$")).as_py():
            return None
        found.any_json |= rows.notes.null_count < len(rows.notes)
        if rows.pictures.null_count:
            alone = rows.pictures.is_null()
            lone.update(zip(rows.stems.filter(alone).to_pylist(), rows.notes.filter(alone).to_pylist()))
            if len(lone) > _MOST_SINGLES:
                return None
    for rows in _paired(listing, explicit) if lone else ():
        if rows.notes.null_count:
            alone = rows.notes.is_null()
            bare.update(zip(rows.stems.filter(alone).to_pylist(), rows.pictures.filter(alone).to_pylist()))
            if len(bare) > _MOST_SINGLES:
                return None
    for notes, stem in pair_apart(bare, lone).items() if bare and lone else ():
        found.apart[bare[stem]] = lone[notes]
        found.notes_apart.add(notes)
    return found


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
            keep &= pc.or_(rows.pictures.is_valid(), named).to_numpy(zero_copy_only=False)
        stems, pictures, notes = (each.filter(pa.array(keep)) for each in (rows.stems, rows.pictures, rows.notes))
        if found.apart:
            pairs = zip(notes.to_pylist(), pictures.to_pylist())
            notes = pa.array([own or found.apart.get(picture or "") for own, picture in pairs], pa.string())
        # Named after its picture even where that is missing, so that it is the same item once it is there.
        uris = pc.fill_null(pictures, pc.binary_join_element_wise(stems, "jpg", "."))
        names = [stem.rsplit("/", 1)[-1] for stem in stems.to_pylist()]
        batch = file_rows(source, uris, uris, names, _details(notes, pictures))
        yield batch, pa.concat_arrays([pictures.drop_null(), notes.drop_null()])


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
    waiting = pa.array([], pa.string())
    for batch in listing.batches():
        uris = batch["uri"]
        uris = uris.filter(pc.match_substring_regex(uris, _PAIR))
        if not explicit:
            uris = uris.filter(pc.match_substring_regex(_stems(uris), _OFFICIAL))
        uris = pa.concat_arrays([waiting, uris])
        if not len(uris):
            continue
        stems = _stems(uris)
        last = int(pc.index(stems, stems[-1]).as_py())
        waiting = uris.slice(last)
        if last:
            yield _rows(uris.slice(0, last), stems.slice(0, last))
    if len(waiting):
        yield _rows(waiting, _stems(waiting))


def _rows(uris: pa.Array, stems: pa.Array) -> _Rows:
    starts = np.append(True, pc.not_equal(stems[1:], stems[:-1]).to_numpy(zero_copy_only=False))
    group = np.cumsum(starts) - 1
    is_json = pc.match_substring_regex(uris, _JSON).to_numpy(zero_copy_only=False)
    columns = []
    for wanted in (~is_json, is_json):
        rows = np.flatnonzero(wanted)
        place = np.full(group[-1] + 1, -1, np.int64)
        place[group[rows]] = rows  # of several the last one, as in a dictionary
        columns.append(uris.take(pa.array(place, mask=place < 0)))
    return _Rows(stems.filter(pa.array(starts)), *columns)


def _stems(uris: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(uris, r"(?is)[.](jpe?g|json)$", "")
