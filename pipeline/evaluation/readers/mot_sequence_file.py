"""The text file of one sequence, on its own or in a zip, with what lies beside it."""

from __future__ import annotations

import configparser
import posixpath
from dataclasses import dataclass

from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.formats.frame_numbers import MAX_FRAME
from trackmill.pipeline.formats.mot_text import MAX_TEXT_BYTES, MotRows, parse_mot_text
from trackmill.pipeline.formats.packed import gunzipped, member_bytes, open_archive
from trackmill.pipeline.formats.text_spellings import utf8
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.urls import dirname

MAX_ARCHIVE_BYTES = 512 << 20
"""Size limit of an archive of track files."""

_MOST_ARCHIVES = 2
_ARCHIVES: dict[str, bytes] = {}
"""Bytes of the archives that were opened last, fetched once for all of their members."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceFile:
    """The text file of one sequence.

    Args:
        name: name of the sequence.
        url: the file, or the archive that holds it.
        member: name inside the archive; empty for a plain file.
        seqinfo: URL of `seqinfo.ini`, or its name inside the archive; empty where there is none.
        seqinfo_is_guess: whether there may be no such file.
        labels: the same of `gt/labels.txt`, in which CVAT names the classes.
        is_gt_layout: whether the file lies at `SEQUENCE/gt/gt.txt`.
    """

    name: str
    url: str
    member: str = ""
    seqinfo: str = ""
    seqinfo_is_guess: bool = False
    labels: str = ""
    is_gt_layout: bool = False

    def read(self) -> MotRows:
        """Read and parse the file.

        Raises:
            BadTracks: see `parse_mot_text`.
            OSError: the file cannot be read.
        """
        where = f"{self.url}/{self.member}" if self.member else self.url
        text = unpacked(self.url, self.member) if self.member else read_bytes(self.url, max_bytes=MAX_TEXT_BYTES)
        if where.lower().endswith(".gz"):
            text = bytes(gunzipped(text, redact(where), MAX_TEXT_BYTES))
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
        except OSError:
            if self.seqinfo_is_guess:
                return None
            raise
        try:
            parser.read_string(utf8(text, where).decode())
            length = int(parser["Sequence"]["seqLength"])
        except (configparser.Error, KeyError, ValueError, UnicodeDecodeError):
            raise BadTracks(f"{where}: should hold a section [Sequence] with seqLength=<number of frames>") from None
        if not 1 <= length <= MAX_FRAME:
            raise BadTracks(f"{where}: seqLength is {str(length)[:40]}, should be 1 to {MAX_FRAME}")
        return length

    def place_of_seqinfo(self) -> str:
        """Where a `seqinfo.ini` would be read."""
        if self.is_gt_layout:
            folder = posixpath.dirname(posixpath.dirname(self.member)) if self.member else dirname(dirname(self.url))
        else:
            folder = posixpath.join(posixpath.dirname(self.member) if self.member else dirname(self.url), self.name)
        inside = f" in {redact(self.url)}" if self.member else ""
        return redact(posixpath.join(folder, "seqinfo.ini")) + inside

    def class_names(self) -> tuple[str, ...]:
        """Names of the classes 1, 2, ... according to `labels.txt`; none where there is no such file.

        Raises:
            BadTracks: `labels.txt` is no text.
        """
        if not self.labels:
            return ()
        try:
            lines = utf8(self._beside(self.labels), self.labels).decode().splitlines()
        except UnicodeDecodeError:
            raise BadTracks(f"{redact(self.labels)}: should hold the name of a class in each line, in UTF-8") from None
        return tuple(line.strip() for line in lines if line.strip())

    def _beside(self, name: str) -> bytes:
        return unpacked(self.url, name) if self.member else read_bytes(name, max_bytes=1 << 20)


def member_names(url: str) -> list[str]:
    """Names of all files in an archive, which is read anew.

    Raises:
        BadTracks: no zip archive.
        OSError: it cannot be read.
    """
    _ARCHIVES.pop(url, None)
    with open_archive(_archive(url), redact(url)) as archive:
        return archive.namelist()


def unpacked(url: str, member: str) -> bytes:
    """Bytes of a file in an archive.

    Raises:
        BadTracks: it cannot be unpacked, or is too large.
        OSError: the archive cannot be read.
    """
    with open_archive(_archive(url), redact(url)) as archive:
        return bytes(member_bytes(archive, member, redact(url), MAX_TEXT_BYTES))


def _archive(url: str) -> bytes:
    if url not in _ARCHIVES:
        data = read_bytes(url, max_bytes=MAX_ARCHIVE_BYTES)
        while len(_ARCHIVES) >= _MOST_ARCHIVES:
            del _ARCHIVES[next(iter(_ARCHIVES))]
        _ARCHIVES[url] = data
    return _ARCHIVES[url]
