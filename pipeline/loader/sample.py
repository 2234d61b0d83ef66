"""A sample read for training: makes only the checks that training needs, and parses only what is used."""

from __future__ import annotations

import hashlib
import math
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from trackmill.pipeline.shards.decode import MAX_PIXELS, decode_jpeg
from trackmill.pipeline.shards.stream import BadShardMember, key_of
from trackmill.pipeline.shards.tar import BLOCK, BadShard, header, padding, parse_header
from trackmill.pipeline.sidecars.about import NoSidecar
from trackmill.pipeline.sidecars.tables import SidecarTables
from trackmill.schemas.keys import frame_member, video_of
from trackmill.schemas.sample import SCHEMA_VERSION

_INVALID = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError)
_EMPTY = header("_", 0)
_CONSTANT_SUM = sum(_EMPTY[100:124]) + sum(_EMPTY[135:148]) + 8 * 32 + sum(_EMPTY[156:])
_Proposals = tuple[NDArray[np.float32], NDArray[np.float32]]
_Objects = tuple[NDArray[np.float32], NDArray[np.int64]]
_ENDLESS = 1e9
"""Exclusive limit of coordinates and scores; the comparison `< _ENDLESS` also fails for NaN."""


class ShardSample:
    """A sample in the memory of a reader, see `trackmill.pipeline.loader.contract.StoredSample`.

    `trackmill.pipeline.shards.decode.Sample` checks every field of the record, which is slow compared with decoding
    the JPEG. This class checks the outer fields of the record and the boxes of a picture at once, the rest on access.

    Args:
        piece: the bytes of the sample in the tar.
        shard: file name of the tar, for messages.
        offset: offset of the piece in the tar, in bytes.
        tables: the sidecars of the data set; None without any, as for a folder of tars.
        compare: compare each frame with the SHA-256 in the record before it is decoded.

    Raises:
        BadShard: the bytes are not one whole sample of a known schema version.
    """

    def __init__(
        self, piece: bytes, shard: str, offset: int, tables: SidecarTables | None = None, compare: bool = False
    ) -> None:
        self._tables = tables
        names, parts = _members(piece, shard, offset)
        self._member = names.pop()
        self.key, self.shard = key_of(self._member), shard
        self.problem = ""
        """The fault that an access to a part of the sample found; empty if there is none."""
        if self._member != f"{self.key}.json":
            raise BadShardMember(shard, f"{self.key}.json", "is missing or not the last member of its sample")
        try:
            record = orjson.loads(parts[-1])
            version = record["schema_version"]
            if version != SCHEMA_VERSION:
                raise self._bad(
                    f"has schema version {str(version)[:40]}; this program reads {SCHEMA_VERSION}: update it"
                )
            if record["key"] != self.key:
                raise self._bad(f"says its key is {str(record['key'])[:100]!r}")
            stored, origin = record["stored"], record["origin"]
            self.height, self.width = int(stored["height"]), int(stored["width"])
            self._frames: list[dict[str, Any]] = record["frames"]
            count = len(self._frames)
            expected = [frame_member(self.key, i, count, record["kind"]) for i in range(count)]
            expected += [f"{self.key}.masks.json"] if record["has_masks"] else []
            self.origin = str(origin["uri"])
            if origin["byte_range"]:  # one of many inside a tar
                self.origin += "[{}+{}]".format(*origin["byte_range"])
            self.source = str(origin["source"])
            self.video = video_of(str(origin["source_id"])) if record["kind"] == "clip" else ""
        except BadShard:
            raise
        except _INVALID as error:
            raise self._bad(f"is not a valid record ({type(error).__name__}: {error})") from None
        if names != expected or not count:
            raise self._bad(f"does not fit the members before it: {', '.join(names[:4])}")
        if not 0 < self.height * self.width <= MAX_PIXELS or self.height < 0:
            raise self._bad(f"declares frames of {self.height} x {self.width}")
        self._jpegs = list(zip(names, parts))[:count]
        self._sums = [frame.get("sha256") for frame in self._frames] if compare else []
        self._parsed: tuple[_Proposals, _Objects | None] | None = None
        if count == 1:
            # A picture's boxes are always needed. They are parsed now, while the record is in the CPU's caches. Then
            # the record need not be kept, whose many small lists would keep the garbage collector busy.
            self._parsed = self.proposals(0), self.objects(0)
            self._frames = []

    @property
    def num_frames(self) -> int:
        """F; 1 for a picture."""
        return len(self._jpegs)

    def image(self, frame: int, least: tuple[int, int] = (0, 0)) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB of one frame, or of a smaller size; every call decodes it again.

        See `trackmill.pipeline.loader.contract.StoredSample.image`.

        Raises:
            BadShardMember: not a whole JPEG of the declared size, or not the one that was stored.
        """
        name, data = self._jpegs[frame]
        try:
            if self._sums and hashlib.sha256(data).hexdigest() != self._sums[frame]:
                raise BadShardMember(self.shard, name, "is damaged: its SHA-256 is not the recorded one")
            return decode_jpeg(data, self.shard, name, self.height, self.width, least)
        except BadShard as error:
            self.problem = str(error)
            raise

    def frame_index(self, frame: int) -> int:
        """Number of a frame in its source video; 0 for a picture.

        Raises:
            BadShardMember: the record holds no such number.
        """
        return int(self._number(frame, "index") or 0)

    def frame_time(self, frame: int) -> float:
        """Seconds from the beginning of the source video to a frame; NaN where unknown.

        Raises:
            BadShardMember: the record holds no such number.
        """
        seconds = self._number(frame, "time_s")
        return math.nan if seconds is None else float(seconds)

    def proposals(self, frame: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Boxes (N, 4) float32 xyxy in pixels of the stored frame, and scores (N,) float32, best first.

        Raises:
            BadShardMember: a box is not finite or inverted (x1 < x0), or there is not one score per box.
        """
        if self._parsed is not None:
            return self._parsed[0]
        try:
            found = self._frames[frame]["proposals"]
            return _boxes_and_scores(found["boxes"], found["scores"])
        except _INVALID as error:
            raise self._bad(f"frame {frame}: proposals are not valid ({type(error).__name__}: {error})") from None

    def objects(self, frame: int) -> tuple[NDArray[np.float32], NDArray[np.int64]] | None:
        """Boxes (G, 4) float32 and ids (G,) int64 of the annotated objects; None where the frame was never annotated.

        Raises:
            BadShardMember: see `proposals`.
        """
        if self._parsed is not None:
            return self._parsed[1]
        try:
            found = self._frames[frame]["objects"]
            if found is None:
                return None
            boxes, _ = _boxes_and_scores(found["boxes"], found["scores"])
            ids = np.array(found["ids"]) if found["ids"] else np.zeros(0, np.int64)
            if ids.shape != (len(boxes),) or ids.dtype.kind != "i":
                raise ValueError("not one whole number per box as its id")
            return boxes, ids.astype(np.int64, copy=False)
        except _INVALID as error:
            raise self._bad(f"frame {frame}: objects are not valid ({type(error).__name__}: {error})") from None

    def sidecar(self, name: str, frame: int) -> dict[str, NDArray[Any]]:
        """See `trackmill.pipeline.loader.contract.StoredSample.sidecar`."""
        if self._tables is None:
            raise NoSidecar(f"{self.key}: sidecar {name!r}: the sample was opened without its data set's sidecars")
        try:
            return self._tables.rows(name, self.shard, self.key, frame)
        except BadShard as error:
            self.problem = str(error)
            raise

    def _number(self, frame: int, name: str) -> int | float | None:
        if self._parsed is not None:  # a picture
            return None
        try:
            found = self._frames[frame][name]
            if found is not None and not abs(found) < _ENDLESS:
                raise ValueError(f"{name} is no number of a frame")
            number: int | float | None = found
            return number
        except _INVALID as error:
            raise self._bad(f"frame {frame}: {name} is not valid ({type(error).__name__}: {error})") from None

    def _bad(self, what: str) -> BadShardMember:
        self.problem = f"{self.shard}: {self._member}: {what}"
        return BadShardMember(self.shard, self._member, what)


def _boxes_and_scores(boxes: Any, scores: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    count = len(boxes)
    if len(scores) != count or not set(map(len, boxes)) <= {4}:
        raise ValueError("not four numbers per box and one score")
    # One array for all, since each NumPy call costs more than its work on so few numbers.
    values = np.fromiter(chain(chain.from_iterable(boxes), scores), np.float64, 5 * count)
    if not (np.abs(values) < _ENDLESS).all():
        raise ValueError("a number is not finite, or beyond all pictures")
    numbers = values.astype(np.float32)
    corners = numbers[: 4 * count].reshape(count, 4)
    if (corners[:, 2:] < corners[:, :2]).any():  # boxes without area are the caller's affair
        raise ValueError("a box is inverted (x1 < x0)")
    return corners, numbers[4 * count :]


def _members(piece: bytes, shard: str, offset: int) -> tuple[list[str], list[memoryview]]:
    """Names and bytes of the members, as in `trackmill.pipeline.shards.stream.split_piece`, but without copies."""
    view, position = memoryview(piece), 0
    names, parts = [], []
    while position < len(piece):
        block = piece[position : position + BLOCK]
        found = _own_header(block)
        if found is None:  # of another writer, or damaged
            member = parse_header(block, offset + position, shard)
            found = member.name, member.size
        name, size = found
        begin = position + BLOCK
        position = begin + size + padding(size)
        if position > len(piece):
            raise BadShardMember(shard, name, "ends outside the byte range that its receipt names")
        names.append(name)
        parts.append(view[begin : begin + size])
    if not names:
        raise BadShard(f"{shard}: there is no sample at byte {offset}")
    return names, parts


def _own_header(block: bytes) -> tuple[str, int] | None:
    """(name, size) of a header that `trackmill.pipeline.shards.tar.header` wrote, else None; five times faster."""
    if block[100:124] != _EMPTY[100:124] or block[135:148] != _EMPTY[135:148] or block[156:] != _EMPTY[156:]:
        return None
    name, size, checksum = block[:100], block[124:135], block[148:154]
    if not (size.isdigit() and checksum.isdigit()):
        return None
    try:
        if int(checksum, 8) != _CONSTANT_SUM + sum(name) + sum(size):
            return None
        return name.rstrip(b"\0").decode("ascii"), int(size, 8)
    except ValueError:  # digits that are not octal, or a name that is not ASCII
        return None
