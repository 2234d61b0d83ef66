"""The index of an MP4 or MOV file, looked at before FFmpeg builds one from it (ISO/IEC 14496-12).

A table of a few bytes may declare millions of samples of one size, and FFmpeg makes an entry of each. Every sample of a
real file takes at least a byte of it, so what is declared is compared with the size of the file first. Only boxes that
can make FFmpeg's index grow are read; all others are passed over.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass, field
from typing import IO

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.media.errors import BadItem, FrameLimit, too_many_frames

_BEGINNINGS = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"sidx", b"moof", b"uuid"}
_CONTAINER_BOXES = {
    *(b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf", b"udta", b"tref"),
    *(b"moof", b"traf", b"mvex", b"mfra", b"gmin", b"clip", b"tapt"),
}
_MAY_HIDE_INDEX = {b"free", b"hoov"}
"""In these FFmpeg looks for the index of a file that was moved or is being written."""

_DEEPEST = 16
_MOST_BOXES = 1_000_000
_MOST_UNPACKED = 64 << 20
"""Of an index that is compressed, as QuickTime wrote it in the nineties."""

_SOUND_PER_BYTE = 256
"""Most samples of sound that a byte stands for where they are counted one by one: speech at 8 kHz takes some 64."""

_SOUND_AT_LEAST = 10_000_000  # which is listed in a moment, however small the file is

# Of tables that begin with version, flags and the number of entries: how many numbers of 32 bits an entry has.
_COLUMNS = {b"stts": 2, b"ctts": 2, b"stsc": 3, b"stco": 1, b"co64": 2, b"stss": 1, b"stps": 1}
_CHUNKS = (b"stco", b"co64")
_READ = (b"stts", b"stsc", b"stss")
# Which fields of a run of samples are there, by its flags, of four bytes each.
_RUN_FIELDS = (0x100, 0x200, 0x400, 0x800)

_Table = NDArray[np.int64]


@dataclass(slots=True)
class _Track:
    """What the boxes of a track declare.

    Args:
        kinds: of what it holds: `vide`, `soun`, ...
        samples: how many.
        size: of each in bytes; 0 where each has its own.
        timescale: units of time in a second.
        chunks: places in the file where samples lie.
        tables: the entries of some, by their names.
        edits: (N,) how long each is, in the movie's timescale.
    """

    kinds: set[bytes] = field(default_factory=set)
    samples: int = 0
    size: int = 0
    timescale: int = 0
    chunks: int = 0
    tables: dict[bytes, _Table] = field(default_factory=dict)
    edits: NDArray[np.float64] | None = None


def check_index(handle: IO[bytes], name: str, max_frames: int) -> None:
    """Refuse an MP4 or MOV file that declares more than it can hold, or too much; other files are passed.

    Args:
        handle: seekable; its position changes.
        name: URI, for the errors.
        max_frames: most frames of a video.

    Raises:
        FrameLimit: more frames than `max_frames`, in the tables or by edits that show some again and again.
        BadItem: tables or samples that the file is too small for.
    """
    total = handle.seek(0, 2)
    handle.seek(4)
    if handle.read(4) in _BEGINNINGS:
        walk = _Walk(name, max_frames, total)
        walk.boxes(handle, 0, total)
        walk.check_track()


class _Walk:
    """One walk over the boxes of a file.

    Args:
        name: URI, for the errors.
        max_frames: most frames of a video.
        total: size of the file in bytes.
    """

    def __init__(self, name: str, max_frames: int, total: int) -> None:
        self._name = name
        self._max_frames = max_frames
        self._total = total
        self._room = total  # in what is being read: the file, or an index that was compressed
        self._boxes = 0
        self._track = _Track()
        self._timescale = 0
        self._fragments = 0

    def boxes(self, handle: IO[bytes], position: int, end: int, depth: int = 0) -> None:
        """Look at all boxes from `position` to `end`, in place of what FFmpeg would read there."""
        while position + 8 <= end:
            self._boxes += 1
            if self._boxes > _MOST_BOXES or depth > _DEEPEST:
                raise BadItem(f"{self._name}: its index has more boxes than any program writes, or deeper ones")
            handle.seek(position)
            head = handle.read(16)
            size, kind, body = int.from_bytes(head[:4], "big"), head[4:8], position + 8
            if size == 1:
                size, body = int.from_bytes(head[8:16], "big"), position + 16
            if size == 0:
                size = end - position
            if size < body - position:
                return
            self._box(handle, kind, body, min(position + size, end), depth)
            position += size

    def _box(self, handle: IO[bytes], kind: bytes, body: int, end: int, depth: int) -> None:
        if kind == b"trak":
            self.check_track()
            self._track = _Track()
        if kind in _CONTAINER_BOXES:
            self.boxes(handle, body, end, depth + 1)
            return
        handle.seek(body)
        if kind in (b"mvhd", b"mdhd"):
            head = handle.read(24)
            scale = int.from_bytes(head[20:24] if head[:1] == b"\1" else head[12:16], "big")
            if kind == b"mvhd":
                self._timescale = scale
            else:
                self._track.timescale = scale
        elif kind == b"hdlr":
            self._track.kinds.add(handle.read(12)[8:])
        elif kind in (b"stsz", b"stz2"):
            self._sizes(handle, kind, body)
        elif kind in _COLUMNS:
            self._table(handle, kind, body)
        elif kind == b"elst":
            self._edit_list(handle, body)
        elif kind == b"trun":
            self._run(handle, body)
        elif kind == b"meta":
            self.boxes(handle, body + 4, end, depth + 1)
        elif kind == b"cmov":
            self._compressed(handle, body, end, depth)
        elif kind in _MAY_HIDE_INDEX and handle.read(8)[4:] in (b"mvhd", b"cmov"):
            self.boxes(handle, body, end, depth + 1)

    def _compressed(self, handle: IO[bytes], body: int, end: int, depth: int) -> None:
        if self._room != self._total:
            return  # FFmpeg unpacks once
        data = handle.read(end - body)
        place = data.find(b"cmvd")
        unpacker = zlib.decompressobj()
        try:
            inside = unpacker.decompress(data[place + 8 :], _MOST_UNPACKED) if place >= 0 else b""
        except zlib.error:
            return  # FFmpeg says that it is broken
        if unpacker.unconsumed_tail:
            raise BadItem(f"{self._name}: its compressed index is larger than {_MOST_UNPACKED} bytes")
        self._room = len(inside)
        self.boxes(io.BytesIO(inside), 0, len(inside), depth + 1)
        self._room = self._total

    def _sizes(self, handle: IO[bytes], kind: bytes, body: int) -> None:
        head = handle.read(12)
        size, count = int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:], "big")
        bits = (size & 0xFF if kind == b"stz2" else 0 if size else 32) * count
        self._fits(kind, bits // 8, body)
        self._track.samples, self._track.size = count, 0 if kind == b"stz2" else size

    def _table(self, handle: IO[bytes], kind: bytes, body: int) -> None:
        count, columns = int.from_bytes(handle.read(8)[4:], "big"), _COLUMNS[kind]
        self._fits(kind, 4 * columns * count, body)
        if kind in _CHUNKS:
            self._track.chunks = count
        elif kind in _READ:
            self._track.tables[kind] = _numbers(handle.read(4 * columns * count), columns)

    def _edit_list(self, handle: IO[bytes], body: int) -> None:
        head = handle.read(8)
        count, is_long = int.from_bytes(head[4:], "big"), head[:1] == b"\1"
        self._fits(b"elst", (20 if is_long else 12) * count, body)
        if is_long:
            found = _numbers(handle.read(20 * count), 5).astype(np.float64)
            self._track.edits = found[:, 0] * (1 << 32) + found[:, 1]
        else:
            self._track.edits = _numbers(handle.read(12 * count), 3)[:, 0].astype(np.float64)

    def check_track(self) -> None:
        """Compare what the last track declares with the size of the file."""
        track, name = self._track, self._name
        times = track.tables.get(b"stts")
        one_by_one = times is not None and len(times) == 1 and times[0, 1] == 1 and track.kinds == {b"soun"}
        if not one_by_one and track.samples * max(1, track.size) > self._total:
            raise self._too_much(b"stsz", track.samples)
        if b"vide" in track.kinds and track.samples > self._max_frames:
            raise too_many_frames(name, track.samples, self._max_frames)
        runs = track.tables.get(b"stsc")
        if one_by_one and runs is not None and len(runs):
            per_run = np.diff(runs[:, 0], append=max(track.chunks + 1, int(runs[-1, 0]))).clip(0, track.chunks)
            sounds = float((per_run.astype(np.float64) * runs[:, 1]).sum())
            if sounds > _SOUND_PER_BYTE * self._total + _SOUND_AT_LEAST:
                raise self._too_much(b"stsc", int(sounds))
        shown = self._shown_by_edits(track)
        if shown > max(self._max_frames, 2 * track.samples):
            raise FrameLimit(
                f"{name}: its edit list shows {track.samples} samples so often that {shown} have to be read, more than "
                f"`read.max_frames` = {self._max_frames}"
            )

    def _shown_by_edits(self, track: _Track) -> int:
        """About how many samples FFmpeg lists for the edits of a track: each begins at a keyframe."""
        times, keyframes = track.tables.get(b"stts"), track.tables.get(b"stss")
        if track.edits is None or times is None or not track.samples:
            return 0
        length = float((times[:, 0].astype(np.float64) * times[:, 1]).sum()) / track.samples or 1.0
        scale = track.timescale / (self._timescale or 1)
        before = 1
        if keyframes is not None and len(keyframes):
            before = int(np.diff(keyframes[:, 0], prepend=1, append=track.samples + 1).max())
        return int(np.minimum(track.edits * scale / length + before, track.samples).sum())

    def _run(self, handle: IO[bytes], body: int) -> None:
        head = handle.read(8)
        flags, count = int.from_bytes(head[1:4], "big"), int.from_bytes(head[4:], "big")
        self._fits(b"trun", 4 * sum(bool(flags & each) for each in _RUN_FIELDS) * count, body)
        self._fragments += count
        if self._fragments > self._total:
            raise self._too_much(b"trun", self._fragments)

    def _fits(self, kind: bytes, size: int, position: int) -> None:
        if position + size > self._room:
            raise BadItem(
                f"{self._name}: its index ({kind.decode()}) declares {size} bytes, and the file ends before that"
            )

    def _too_much(self, kind: bytes, count: int) -> BadItem:
        return BadItem(
            f"{self._name}: its index ({kind.decode()}) declares {count} samples, more than a file of {self._total} "
            "bytes can hold"
        )


def _numbers(data: bytes, columns: int) -> NDArray[np.int64]:
    whole = len(data) // (4 * columns) * 4 * columns
    return np.frombuffer(data[:whole], ">u4").astype(np.int64).reshape(-1, columns)
