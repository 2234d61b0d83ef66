"""Finds the text file of each sequence: in MOTChallenge folders, flat folders of `SEQUENCE.txt`, zips, one file."""

from __future__ import annotations

import configparser
import functools
import io
import posixpath
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.formats.mot_text import MotRows, parse_mot_text
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import basename, canonical, dirname, list_files, read_bytes
from trackmill.schemas.names import nearest

MAX_TEXT_BYTES = 1 << 30
"""Size limit of a text file of tracks, also after unpacking: it stops zip bombs."""

_NO_TRACKS = ("_summary.txt", "readme.txt", "seqmap.txt", "_seqmap.txt")
"""Endings of text files that lie beside result files but hold no tracks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceFile:
    """The text file of one sequence.

    Args:
        name: name of the sequence.
        url: the file, or the archive that holds it.
        member: name inside the archive; empty for a plain file.
        seqinfo: URL of `seqinfo.ini`; empty where there is none.
        is_gt_layout: whether the file lies at `SEQUENCE/gt/gt.txt`.
    """

    name: str
    url: str
    member: str = ""
    seqinfo: str = ""
    is_gt_layout: bool = False

    def read(self) -> MotRows:
        """Read and parse the file.

        Raises:
            BadTracks: see `parse_mot_text`.
            OSError: the file cannot be read.
        """
        if not self.member:
            return parse_mot_text(read_bytes(self.url, max_bytes=MAX_TEXT_BYTES), self.url)
        try:
            with zipfile.ZipFile(io.BytesIO(_archive(self.url))) as archive, archive.open(self.member) as handle:
                text = handle.read(MAX_TEXT_BYTES + 1)
        except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
            raise BadTracks(f"{redact(self.url)}: cannot unpack {self.member}: {error}") from None
        if len(text) > MAX_TEXT_BYTES:
            raise BadTracks(f"{redact(self.url)}: {self.member} unpacks to more than {MAX_TEXT_BYTES:,} bytes")
        return parse_mot_text(text, f"{self.url}/{self.member}")

    def length(self) -> int | None:
        """Number of frames according to `seqinfo.ini`; None where there is no such file.

        Raises:
            BadTracks: `seqinfo.ini` gives no valid length.
        """
        if not self.seqinfo:
            return None
        where = redact(self.seqinfo)
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read_string(read_bytes(self.seqinfo, max_bytes=1 << 20).decode("utf-8-sig"))
            length = int(parser["Sequence"]["seqLength"])
        except (configparser.Error, KeyError, ValueError, UnicodeDecodeError):
            raise BadTracks(f"{where}: should hold a section [Sequence] with seqLength=<number of frames>") from None
        if length < 1:
            raise BadTracks(f"{where}: seqLength is {length}, should be 1 or more")
        return length


def find_sequences(url: str) -> dict[str, SequenceFile]:
    """The sequences below a folder, in an archive or in one file, sorted by name.

    In a folder, only the first kind that exists is taken: `SEQUENCE/gt/gt.txt` at any depth, then `*.txt` in the folder
    itself, then `*.txt` below it (as in `TRACKER/data/SEQUENCE.txt`).

    Raises:
        BadTracks: there is no such file, or there are two for one sequence.
        FileNotFoundError: there is nothing at that URL.
    """
    root = canonical(url)
    files = [file.uri for file in list_files(root)]
    if len(files) == 1 and files[0] == root:
        return _in_archive(root) if root.lower().endswith(".zip") else _unique([_single(root)])
    truths = [uri for uri in files if uri.endswith("/gt/gt.txt")]
    if truths:
        known = set(files)
        return _unique([_of_truth(uri, known) for uri in truths])
    texts = [uri for uri in files if _holds_tracks(uri)]
    direct = [uri for uri in texts if dirname(uri) == root]
    archives = [uri for uri in files if uri.lower().endswith(".zip")]
    if not texts and len(archives) == 1:
        return _in_archive(archives[0])
    sequences = _unique([SequenceFile(name=_stem(uri), url=uri) for uri in direct or texts])
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


def result_files(url: str, truths: Mapping[str, SequenceFile], wanted: Sequence[str] | None) -> dict[str, SequenceFile]:
    """The result file of every sequence in `wanted`, or of all where it is None.

    A single file may have any name when there is a single sequence.

    Raises:
        BadTracks: a sequence without results, or results of a sequence that the ground truth does not know.
        FileNotFoundError: there is nothing at that URL.
    """
    names = list(truths) if wanted is None else [name for name in truths if name in set(wanted)]
    files = find_sequences(url)
    if len(names) == 1 and len(files) == 1 and names[0] not in files:
        (only,) = files.values()
        if only.url == canonical(url):
            return {names[0]: only}
    for name in files:
        if name not in truths:
            raise BadTracks(f"{redact(url)}: {unknown(name, list(truths))}")
    missing = [name for name in names if name not in files]
    if missing:
        raise BadTracks(
            f"{redact(url)}: no results for {', '.join(missing[:8])}{', ...' if len(missing) > 8 else ''}; put an "
            f"empty {missing[0]}.txt there if nothing was tracked, or name the sequences to evaluate with --sequences"
        )
    return {name: files[name] for name in names}


def _of_truth(uri: str, known: set[str]) -> SequenceFile:
    folder = dirname(dirname(uri))
    seqinfo = f"{folder}/seqinfo.ini"
    return SequenceFile(name=basename(folder), url=uri, seqinfo=seqinfo if seqinfo in known else "", is_gt_layout=True)


def _single(uri: str) -> SequenceFile:
    if uri.endswith("/gt/gt.txt"):
        seqinfo = f"{dirname(dirname(uri))}/seqinfo.ini"
        beside = {file.uri for file in list_files(dirname(dirname(uri)))}
        return _of_truth(uri, {seqinfo} & beside)
    return SequenceFile(name=_stem(uri), url=uri)


def _in_archive(url: str) -> dict[str, SequenceFile]:
    try:
        with zipfile.ZipFile(io.BytesIO(_archive(url))) as archive:
            members = [name for name in archive.namelist() if _holds_tracks(name)]
    except zipfile.BadZipFile as error:
        raise BadTracks(f"{redact(url)}: not a zip archive: {error}") from None
    if not members:
        raise BadTracks(f"{redact(url)}: holds no SEQUENCE.txt")
    return _unique([SequenceFile(name=_stem(member), url=url, member=member) for member in members])


@functools.lru_cache(maxsize=2)
def _archive(url: str) -> bytes:
    """The bytes of an archive, cached so that it is fetched once for all of its members."""
    return read_bytes(url, max_bytes=MAX_TEXT_BYTES)


def _holds_tracks(name: str) -> bool:
    return name.lower().endswith(".txt") and not name.lower().endswith(_NO_TRACKS) and "/seqmaps/" not in f"/{name}"


def _stem(name: str) -> str:
    return posixpath.splitext(basename(name))[0]


def _unique(files: list[SequenceFile]) -> dict[str, SequenceFile]:
    by_name: dict[str, SequenceFile] = {}
    for file in sorted(files, key=lambda file: file.name):
        if file.name in by_name:
            first, second = (redact(f.url + (f"/{f.member}" if f.member else "")) for f in (by_name[file.name], file))
            raise BadTracks(f"two files for sequence {file.name}: {first} and {second}; name the folder of one of them")
        by_name[file.name] = file
    return by_name
