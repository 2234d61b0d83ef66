"""Finds the text file of each sequence: in MOTChallenge folders, flat folders of `SEQUENCE.txt`, zips, one file.

A zip may hold either layout, with what macOS and CVAT put beside it, and text may be compressed (`SEQUENCE.txt.gz`).
"""

from __future__ import annotations

import configparser
import functools
import gzip
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
        seqinfo: URL of `seqinfo.ini`, or its name inside the archive; empty where there is none.
        labels: the same of `gt/labels.txt`, in which CVAT names the classes.
        is_gt_layout: whether the file lies at `SEQUENCE/gt/gt.txt`.
    """

    name: str
    url: str
    member: str = ""
    seqinfo: str = ""
    labels: str = ""
    is_gt_layout: bool = False

    def read(self) -> MotRows:
        """Read and parse the file.

        Raises:
            BadTracks: see `parse_mot_text`.
            OSError: the file cannot be read.
        """
        where = f"{self.url}/{self.member}" if self.member else self.url
        text = _unpacked(self.url, self.member) if self.member else read_bytes(self.url, max_bytes=MAX_TEXT_BYTES)
        if where.lower().endswith(".gz"):
            text = _gunzipped(text, where)
        return parse_mot_text(text, where)

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
            text = self._beside(self.seqinfo)
            parser.read_string(text.decode("utf-8-sig"))
            length = int(parser["Sequence"]["seqLength"])
        except (configparser.Error, KeyError, ValueError, UnicodeDecodeError):
            raise BadTracks(f"{where}: should hold a section [Sequence] with seqLength=<number of frames>") from None
        if length < 1:
            raise BadTracks(f"{where}: seqLength is {length}, should be 1 or more")
        return length

    def class_names(self) -> tuple[str, ...]:
        """Names of the classes 1, 2, ... according to `labels.txt`; none where there is no such file.

        Raises:
            BadTracks: `labels.txt` is no text.
        """
        if not self.labels:
            return ()
        try:
            lines = self._beside(self.labels).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise BadTracks(f"{redact(self.labels)}: should hold the name of a class in each line, in UTF-8") from None
        return tuple(line.strip() for line in lines if line.strip())

    def _beside(self, name: str) -> bytes:
        return _unpacked(self.url, name) if self.member else read_bytes(name, max_bytes=1 << 20)


def find_sequences(url: str, truth_name: str = "gt.txt") -> dict[str, SequenceFile]:
    """The sequences below a folder, in an archive or in one file, sorted by name.

    In a folder or an archive, only the first kind that exists is taken: `SEQUENCE/gt/gt.txt` at any depth, then `*.txt`
    in the folder itself, then `*.txt` below it (as in `TRACKER/data/SEQUENCE.txt`).

    Args:
        url: folder, archive or file.
        truth_name: what is read in place of `gt.txt`, such as `gt_val_half.txt`.

    Raises:
        BadTracks: there is no such file, or there are two for one sequence.
        FileNotFoundError: there is nothing at that URL.
    """
    root = canonical(url)
    files = [file.uri for file in list_files(root)]
    if len(files) == 1 and files[0] == root:
        return _in_archive(root, truth_name) if root.lower().endswith(".zip") else _unique([_single(root, truth_name)])
    known = set(files)
    truths = [uri for uri in files if uri.endswith(f"/gt/{truth_name}")]
    if truths:
        return _unique([_of_truth(uri, known) for uri in truths])
    if truth_name != "gt.txt":
        others = sorted({basename(uri) for uri in files if dirname(uri).endswith("/gt") and _holds_tracks(uri)})
        advice = nearest(truth_name, others) or f"found in gt folders: {', '.join(others[:8]) or 'nothing'}"
        raise BadTracks(f"{redact(url)}: no SEQUENCE/gt/{truth_name}; {advice}")
    texts = [uri for uri in files if _holds_tracks(uri)]
    direct = [uri for uri in texts if dirname(uri) == root]
    archives = [uri for uri in files if uri.lower().endswith(".zip")]
    if not texts and len(archives) == 1:
        return _in_archive(archives[0], truth_name)
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
    files = find_sequences(url)
    if len(names) == 1 and len(files) == 1 and names[0] not in files:
        (only,) = files.values()
        if only.url == canonical(url):
            return {names[0]: only}
    extra = [name for name in files if name not in truths]
    missing = [name for name in names if name not in files]
    if missing:
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


def _single(uri: str, truth_name: str) -> SequenceFile:
    if uri.endswith(("/gt/gt.txt", f"/gt/{truth_name}")):
        return _of_truth(uri, {file.uri for file in list_files(dirname(dirname(uri)))})
    return SequenceFile(name=_stem(uri), url=uri)


def _in_archive(url: str, truth_name: str) -> dict[str, SequenceFile]:
    try:
        with zipfile.ZipFile(io.BytesIO(_archive(url))) as archive:
            # macOS adds a folder of its own, with a file `._A.txt` for each `A.txt`.
            names = [
                name
                for name in archive.namelist()
                if not name.startswith("__MACOSX/") and not basename(name).startswith(".")
            ]
    except zipfile.BadZipFile as error:
        raise BadTracks(f"{redact(url)}: not a zip archive: {error}") from None
    known = set(names)
    truths = [name for name in names if f"/{name}".endswith(f"/gt/{truth_name}")]
    if truths:
        return _unique([_of_member(url, name, known) for name in truths])
    members = [name for name in names if _holds_tracks(name)]
    if not members or truth_name != "gt.txt":
        raise BadTracks(f"{redact(url)}: holds neither SEQUENCE/gt/{truth_name} nor SEQUENCE.txt")
    return _unique([SequenceFile(name=_stem(member), url=url, member=member) for member in members])


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


def _unpacked(url: str, member: str) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(_archive(url))) as archive, archive.open(member) as handle:
            text = handle.read(MAX_TEXT_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
        raise BadTracks(f"{redact(url)}: cannot unpack {member}: {error}") from None
    if len(text) > MAX_TEXT_BYTES:
        raise BadTracks(f"{redact(url)}: {member} unpacks to more than {MAX_TEXT_BYTES:,} bytes")
    return text


def _gunzipped(data: bytes, where: str) -> bytes:
    try:
        with gzip.open(io.BytesIO(data)) as handle:
            text = handle.read(MAX_TEXT_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BadTracks(f"{redact(where)}: cannot be unpacked: {error}") from None
    if len(text) > MAX_TEXT_BYTES:
        raise BadTracks(f"{redact(where)}: unpacks to more than {MAX_TEXT_BYTES:,} bytes")
    return text


@functools.lru_cache(maxsize=2)
def _archive(url: str) -> bytes:
    """The bytes of an archive, cached so that it is fetched once for all of its members."""
    return read_bytes(url, max_bytes=MAX_TEXT_BYTES)


def _holds_tracks(name: str) -> bool:
    text = name.lower().removesuffix(".gz")
    return text.endswith(".txt") and not text.endswith(_NO_TRACKS) and "/seqmaps/" not in f"/{name}"


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
