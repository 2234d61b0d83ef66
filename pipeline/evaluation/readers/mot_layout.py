"""Finds the text file of each sequence: in MOTChallenge folders, flat folders of `SEQUENCE.txt`, zips, one file.

A zip may hold either layout, with what macOS and CVAT put beside it, and text may be compressed (`SEQUENCE.txt.gz`).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

from trackmill.pipeline.evaluation.readers.mot_sequence_file import SequenceFile, member_names, unpacked
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.formats.mot_text import MAX_TEXT_BYTES, NUM_COLUMNS_NEEDED
from trackmill.pipeline.formats.packed import gunzipped
from trackmill.pipeline.formats.text_spellings import first_line, utf8
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import exists, read_bytes
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.urls import basename, canonical, dirname
from trackmill.schemas.names import nearest

_OTHER_ARCHIVES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")

_DOUBTFUL = ("_summary", "readme", "seqmap")
"""Ends of names of text files that lie beside result files and mostly hold no tracks. A sequence may be called so too:
what the file begins with tells."""


def find_sequences(url: str, truth_name: str = "gt.txt", expected: Collection[str] = ()) -> dict[str, SequenceFile]:
    """The sequences below a folder, in an archive or in one file, sorted by name.

    In a folder or an archive, only the first kind that exists is taken: `SEQUENCE/gt/gt.txt` at any depth, then `*.txt`
    in the folder itself, then `*.txt` below it (as in `TRACKER/data/SEQUENCE.txt`), then archives.

    Args:
        url: folder, archive or file.
        truth_name: what is read in place of `gt.txt`, such as `gt_val_half.txt`.
        expected: sequences that are looked for, which may be called like a file that usually holds no tracks.

    Raises:
        BadTracks: there is no such file, or there are two for one sequence.
        FileNotFoundError: there is nothing at that URL.
    """
    root = canonical(url)
    files = [file.uri for file in list_files(root)]
    if len(files) == 1 and files[0] == root:
        if root.lower().endswith(_OTHER_ARCHIVES):
            raise BadTracks(f"{redact(url)}: archives of this kind are not read; unpack it, or make a zip of it")
        return (
            _in_archive(root, truth_name, expected)
            if root.lower().endswith(".zip")
            else _unique([_single(root, truth_name)])
        )
    known = set(files)
    truths = [uri for uri in files if _is_truth(uri, truth_name)]
    if truths:
        return _unique([_of_truth(uri, known) for uri in [*truths, *_behind_dangling(files, truths, truth_name)]])
    archives = [uri for uri in files if uri.lower().endswith(".zip")]
    if truth_name != "gt.txt" and not archives:
        others = sorted({basename(uri) for uri in files if dirname(uri).endswith("/gt") and uri.endswith(".txt")})
        advice = nearest(truth_name, others) or f"found in gt folders: {', '.join(others[:8]) or 'nothing'}"
        raise BadTracks(f"{redact(url)}: no SEQUENCE/gt/{truth_name}; {advice}")
    texts = [uri for uri in files if _holds_tracks(uri, expected, partial(read_bytes, uri, max_bytes=MAX_TEXT_BYTES))]
    direct = [uri for uri in texts if dirname(uri) == root]
    if archives and (not texts or truth_name != "gt.txt"):
        # One submission, or an export of each task, as CVAT makes them.
        return _unique([file for uri in archives for file in _in_archive(uri, truth_name, expected).values()])
    sequences = _unique([_flat(uri, known, alone=len(direct or texts) == 1) for uri in direct or texts])
    if not sequences:
        raise BadTracks(f"{redact(url)}: holds neither SEQUENCE/gt/gt.txt nor SEQUENCE.txt")
    return sequences


def choose_sequences(names: Iterable[str], wanted: Sequence[str] | None, where: str) -> list[str]:
    """Those of `names` that `wanted` lists, in the order of `names`; all of them where `wanted` is None.

    Raises:
        BadTracks: an unknown name; the message gives the nearest known one.
    """
    known = list(names)
    if wanted is None:
        return known
    for name in wanted:
        if name not in known:
            raise BadTracks(f"{redact(where)}: {unknown(name, known)}")
    return [name for name in known if name in set(wanted)]


def unknown(name: str, known: Sequence[str]) -> str:
    """The error text for a name that is not among the known sequences."""
    listed = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
    hint = nearest(name, known) or f"known: {listed or 'none'}"
    return f"unknown sequence {name!r}; {hint}"


def result_files(
    url: str, truths: Mapping[str, SequenceFile], wanted: Sequence[str] | None, notes: list[str]
) -> dict[str, SequenceFile]:
    """The result file of every sequence in `wanted`, or of all where it is None.

    A single file may have any name when there is a single sequence. Files of no known sequence are not read.

    Args:
        url: of the results.
        truths: the sequences of the ground truth.
        wanted: names of sequences.
        notes: receives a note about files of no known sequence.

    Raises:
        BadTracks: a sequence without results.
        FileNotFoundError: there is nothing at that URL.
    """
    names = list(truths) if wanted is None else [name for name in truths if name in set(wanted)]
    files = find_sequences(url, expected=truths)
    if len(names) == 1 and len(files) == 1 and names[0] not in files:
        (only,) = files.values()
        if only.url == canonical(url):
            return {names[0]: only}
    extra = [name for name in files if name not in truths]
    missing = [name for name in names if name not in files]
    if missing:
        if (stopped := next((name for name in missing if f"{name}.partial" in files), None)) is not None:
            raise BadTracks(
                f"{redact(url)}: {stopped}.partial.txt is what a run left that was stopped; rename it to {stopped}.txt "
                "and give the frames that it has with --frames FIRST:LAST, which holds for all sequences"
            )
        hint = nearest(missing[0], extra)
        raise BadTracks(
            f"{redact(url)}: no results for {', '.join(missing[:8])}{', ...' if len(missing) > 8 else ''}; "
            + (f"{hint} " if hint else "")
            + f"put an empty {missing[0]}.txt there if nothing was tracked, or name the sequences to evaluate with "
            "--sequences"
        )
    if extra:
        listed = ", ".join(basename(files[name].member or files[name].url) for name in extra[:8])
        notes.append(f"files of no sequence of the ground truth were left out: {listed}{', ...' if extra[8:] else ''}")
    return {name: files[name] for name in names}


def _behind_dangling(files: Sequence[str], truths: Sequence[str], truth_name: str) -> list[str]:
    """Ground truth that should lie behind links to nothing, beside the other sequences: reading it says what is wrong.

    Without it a sequence whose disk is not mounted would be missing from the total in silence.
    """
    roots = {dirname(dirname(dirname(uri))) for uri in truths}
    found = []
    for uri in files:
        name, folder = basename(uri), dirname(uri)
        is_sequence, is_gt = folder in roots and "." not in name, name == "gt" and dirname(folder) in roots
        if (is_sequence or is_gt) and not exists(uri):
            found.append(f"{uri}/{truth_name}" if is_gt else f"{uri}/gt/{truth_name}")
    return found


def _of_truth(uri: str, known: set[str]) -> SequenceFile:
    folder = dirname(dirname(uri))
    seqinfo, labels = f"{folder}/seqinfo.ini", f"{folder}/gt/labels.txt"
    return SequenceFile(
        name=basename(folder),
        url=uri,
        seqinfo=seqinfo if seqinfo in known else "",
        labels=labels if labels in known else "",
        is_gt_layout=True,
    )


def _is_truth(name: str, truth_name: str) -> bool:
    return name.removesuffix(".gz").endswith(f"/gt/{truth_name}")


def _single(uri: str, truth_name: str) -> SequenceFile:
    if _is_truth(uri, "gt.txt") or _is_truth(uri, truth_name):
        return _of_truth(uri, {file.uri for file in list_files(dirname(dirname(uri)))})
    # A single file may come from a server that lists nothing, and of results nobody asks for the length.
    name = _stem(uri)
    seqinfo = posixpath.join(dirname(uri), name, "seqinfo.ini")
    return SequenceFile(name=name, url=uri, seqinfo=seqinfo, seqinfo_is_guess=True)


def _flat(uri: str, known: Collection[str], alone: bool) -> SequenceFile:
    """Of `A.txt`: `A/seqinfo.ini` tells its length, and where there is no other sequence, one beside the file."""
    folder, name = dirname(uri), _stem(uri)
    return SequenceFile(name=name, url=uri, seqinfo=_first_known(folder, name, known, alone))


def _flat_member(url: str, member: str, known: Collection[str], alone: bool) -> SequenceFile:
    folder, name = posixpath.dirname(member), _stem(member)
    return SequenceFile(name=name, url=url, member=member, seqinfo=_first_known(folder, name, known, alone))


def _first_known(folder: str, name: str, known: Collection[str], alone: bool) -> str:
    places = [posixpath.join(folder, name, "seqinfo.ini")]
    places += [posixpath.join(folder, "seqinfo.ini")] if alone else []
    return next((place for place in places if place in known), "")


def _in_archive(url: str, truth_name: str, expected: Collection[str]) -> dict[str, SequenceFile]:
    # macOS adds a folder of its own, with a file `._A.txt` for each `A.txt`.
    names = [
        name for name in member_names(url) if not name.startswith("__MACOSX/") and not basename(name).startswith(".")
    ]
    known = set(names)
    truths = [name for name in names if _is_truth(f"/{name}", truth_name)]
    if truths:
        return _unique([_of_member(url, name, known) for name in truths])
    members = [name for name in names if _holds_tracks(name, expected, partial(unpacked, url, name))]
    if not members or truth_name != "gt.txt":
        raise BadTracks(f"{redact(url)}: holds neither SEQUENCE/gt/{truth_name} nor SEQUENCE.txt")
    return _unique([_flat_member(url, member, known, alone=len(members) == 1) for member in members])


def _of_member(url: str, member: str, known: set[str]) -> SequenceFile:
    """Of `A/gt/gt.txt`; of a `gt/gt.txt` at the top, as CVAT exports it, the archive gives its name."""
    folder = posixpath.dirname(posixpath.dirname(member))
    seqinfo, labels = posixpath.join(folder, "seqinfo.ini"), posixpath.join(folder, "gt", "labels.txt")
    return SequenceFile(
        name=basename(folder) if folder else _stem(url),
        url=url,
        member=member,
        seqinfo=seqinfo if seqinfo in known else "",
        labels=labels if labels in known else "",
        is_gt_layout=True,
    )


def _holds_tracks(name: str, expected: Collection[str], read: Callable[[], bytes]) -> bool:
    """Whether a file holds tracks: by its name, else if its name is expected, else by what it begins with."""
    text = name.lower().removesuffix(".gz")
    if not text.endswith(".txt") or "/seqmaps/" in f"/{name}":
        return False
    return not text.removesuffix(".txt").endswith(_DOUBTFUL) or _stem(name) in expected or _begins_like_tracks(read())


def _begins_like_tracks(data: bytes) -> bool:
    """Whether the first line is a row of numbers."""
    try:
        text = utf8(bytes(gunzipped(data, "", MAX_TEXT_BYTES)) if data.startswith(b"\x1f\x8b") else data, "")
    except BadTracks:
        return False
    cells = re.split(rb"[,;\s]+", first_line(text))
    return len(cells) >= NUM_COLUMNS_NEEDED and all(re.fullmatch(rb"[-+.\deE]+", cell) for cell in cells[:6])


def _stem(name: str) -> str:
    plain = basename(name)
    plain = plain[:-3] if plain.lower().endswith(".gz") else plain
    return posixpath.splitext(plain)[0]


def _unique(files: list[SequenceFile]) -> dict[str, SequenceFile]:
    by_name: dict[str, SequenceFile] = {}
    for file in sorted(files, key=lambda file: file.name):
        if file.name in by_name:
            first, second = (redact(f.url + (f"/{f.member}" if f.member else "")) for f in (by_name[file.name], file))
            raise BadTracks(f"two files for sequence {file.name}: {first} and {second}; name the folder of one of them")
        by_name[file.name] = file
    return by_name
