"""A shard front to back in ranged reads: members, then samples, in memory that does not grow with the shard."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from trackmill.pipeline.shards.tar import BLOCK, END, BadShard, Member, member_size, padding, parse_header
from trackmill.pipeline.storage.files import open_for_seeking, read_bytes

CHUNK_BYTES = 8 << 20
MAX_SAMPLE_BYTES = 1 << 30
"""A longer sample is refused: its length comes from a header that anybody could have written."""


class BadShardMember(BadShard):
    """Something is wrong with one member of a shard; `shard`, `member` and `what` say it in parts."""

    def __init__(self, shard: str, member: str, what: str) -> None:
        super().__init__(f"{shard}: {member}: {what}")
        self.shard, self.member, self.what = shard, member, what


@dataclass(frozen=True, slots=True)
class RawSample:
    """Neighbouring members that share a key, unparsed.

    Args:
        shard: file name of the tar, for messages.
        key: the members' common name, up to the first dot.
        offset: byte at which the first member's header stands in the shard.
        members: (name, bytes) in the order they lie.
    """

    shard: str
    key: str
    offset: int
    members: list[tuple[str, bytes]]

    @property
    def size(self) -> int:
        """Bytes the sample takes in the tar, headers and padding included."""
        return sum(member_size(len(data)) for _, data in self.members)


class ShardBytes:
    """The bytes of a shard in order, fetched in ranged reads (each retried by itself) and hashed on the way.

    Args:
        url: the tar.
        size: its length in bytes.
        chunk_bytes: length of one read.
    """

    def __init__(self, url: str, size: int, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.size = size
        self.position = 0
        self._url, self._chunk_bytes = url, chunk_bytes
        self._chunk, self._used = b"", 0
        self._fetched = 0
        self._sha256 = hashlib.sha256()

    def take(self, count: int) -> bytes:
        """The next `count` bytes; fewer only at the end.

        Raises:
            OSError: the file could not be read, or became shorter.
        """
        parts = []
        while count > 0 and (self._used < len(self._chunk) or self._fetch()):
            part = self._chunk[self._used : self._used + count]
            self._used += len(part)
            count -= len(part)
            parts.append(part)
        taken = parts[0] if len(parts) == 1 else b"".join(parts)
        self.position += len(taken)
        return taken

    def sha256(self) -> str:
        """SHA-256 of the whole shard; reads what has not been read yet."""
        while self._fetch():
            pass
        return self._sha256.hexdigest()

    def _fetch(self) -> bool:
        length = min(self._chunk_bytes, self.size - self._fetched)
        if length <= 0:
            return False
        self._chunk, self._used = read_bytes(self._url, self._fetched, length), 0
        self._fetched += length
        self._sha256.update(self._chunk)
        return True


def raw_samples(source: ShardBytes, shard: str) -> Iterator[RawSample]:
    """Samples of a whole shard in order; a key that comes back after another one is given twice.

    Raises:
        BadShard: a header, length or end that is none of ours. What came before has been given by then.
        OSError: the shard could not be read.
    """
    key, offset, held = "", 0, 0
    members: list[tuple[str, bytes]] = []
    while (block := source.take(BLOCK)) and any(block):
        start = source.position - len(block)
        member = _sane(parse_header(block, start, shard), start, shard)
        if member.offset + member.size > source.size:
            raise BadShardMember(
                shard, member.name, f"ends {member.offset + member.size - source.size} bytes past the end: cut off"
            )
        member_key = key_of(member.name)
        if members and member_key != key:
            yield RawSample(shard, key, offset, members)
            members, held = [], 0
        if not members:
            key, offset = member_key, start
        held += member.size
        if held > MAX_SAMPLE_BYTES:
            raise BadShardMember(shard, member.name, f"its sample is larger than {MAX_SAMPLE_BYTES} bytes")
        members.append((member.name, source.take(member.size)))
        if any(source.take(padding(member.size))):
            raise BadShardMember(shard, member.name, "is padded with bytes that are not zero")
    if members:
        yield RawSample(shard, key, offset, members)
    if len(block) != BLOCK or source.take(BLOCK) != END[BLOCK:]:
        raise BadShard(f"{shard}: the mark at its end is missing: cut off")
    if source.position != source.size:
        raise BadShard(f"{shard}: {source.size - source.position} bytes follow the mark at its end")


def split_piece(data: bytes, shard: str, offset: int) -> RawSample:
    """The one sample that a byte range of a shard holds.

    Raises:
        BadShard: the range is not exactly the members of one sample.
    """
    members: list[tuple[str, bytes]] = []
    position = 0
    while position < len(data):
        member = _sane(parse_header(data[position : position + BLOCK], offset + position, shard), offset, shard)
        begin = member.offset - offset
        if begin + member.size + padding(member.size) > len(data):
            raise BadShardMember(shard, member.name, "ends outside the byte range that its receipt names")
        members.append((member.name, data[begin : begin + member.size]))
        position = begin + member.size + padding(member.size)
    keys = {key_of(name) for name, _ in members}
    if len(keys) != 1:
        raise BadShard(f"{shard}: bytes {offset} to {offset + len(data)} hold the samples {sorted(keys)}, not one")
    return RawSample(shard, keys.pop(), offset, members)


def index_shard(url: str, size: int, shard: str) -> list[tuple[str, int, int, int]]:
    """(key, offset, size, frames) of every sample, from the headers alone.

    Raises:
        BadShard: see `raw_samples`.
    """
    found: list[tuple[str, int, int, int]] = []
    position = 0
    with open_for_seeking(url) as handle:
        while position < size:
            handle.seek(position)
            block = handle.read(BLOCK)
            if not any(block):
                break
            member = _sane(parse_header(block, position, shard), position, shard)
            length = member_size(member.size)
            key, is_frame = key_of(member.name), member.name.endswith(".jpg")
            if found and found[-1][0] == key:
                _, offset, before, frames = found.pop()
                found.append((key, offset, before + length, frames + is_frame))
            else:
                found.append((key, position, length, int(is_frame)))
            position += length
    return found


def key_of(name: str) -> str:
    """Sample key of a member, the way WebDataset cuts names: all up to the first dot."""
    return name.partition(".")[0]


def _sane(member: Member, position: int, shard: str) -> Member:
    # Octal fields are read by `int`, which takes a minus sign: such a length would send a reader backwards for ever.
    if member.size < 0:
        raise BadShardMember(shard, member.name, f"declares {member.size} bytes in its header near byte {position}")
    return member
