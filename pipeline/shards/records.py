"""Records without their pictures: the end of each sample is read, where its JSON lies, and nothing else of it.

A record is a few hundredths of its sample, so that counting over a data set in a store costs requests and hardly any
traffic. What is not read is not checked either; `trackmill.pipeline.shards.verify` does that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from trackmill.pipeline.shards.decode import parse_record
from trackmill.pipeline.shards.reader import Dataset
from trackmill.pipeline.shards.stream import MAX_SAMPLE_BYTES, BadShardMember
from trackmill.pipeline.shards.tar import BLOCK, BadShard, padding, parse_header
from trackmill.pipeline.storage.files import read_bytes
from trackmill.schemas.receipt import ReceiptRow
from trackmill.schemas.sample import SampleRecord

_FIRST_BYTES = 128 << 10
"""Read first; four times as much as long as the record does not begin in it. A record has some 70 bytes a proposal."""
_THREADS = 16
_AHEAD = 64


def read_record(dataset: Dataset, row: ReceiptRow) -> SampleRecord:
    """The record of a stored sample.

    Args:
        dataset: that holds it.
        row: of the sample; one that is `ok`.

    Raises:
        BadShardMember: the bytes at its place do not end in its record, or it is not valid.
        OSError: the shard could not be read.
    """
    last = f"{row.key}.json"
    if row.offset < 0 or not 0 < row.size <= MAX_SAMPLE_BYTES or row.size % BLOCK:
        raise BadShardMember(row.shard, last, f"has no place in its receipt: {row.size} bytes at {row.offset}")
    url, length = dataset.shard_url(row.shard), min(_FIRST_BYTES, row.size)
    while True:
        tail = read_bytes(url, row.offset + row.size - length, length)
        data = _last_member(tail, last)
        if data is not None:
            return parse_record(data, row.shard, row.key)
        if length == row.size:
            raise BadShardMember(row.shard, last, f"does not end at byte {row.offset + row.size} as its receipt says")
        length = min(4 * length, row.size)


def iter_records(
    dataset: Dataset, rows: Iterable[ReceiptRow]
) -> Iterator[tuple[ReceiptRow, SampleRecord | BadShard | OSError]]:
    """The records of some samples in their order, read some way ahead; or the error in place of a record."""

    def read(row: ReceiptRow) -> tuple[ReceiptRow, SampleRecord | BadShard | OSError]:
        try:
            return row, read_record(dataset, row)
        except (BadShard, OSError) as error:
            return row, error

    waiting = iter(rows)
    pool = ThreadPoolExecutor(_THREADS)
    try:
        begun: deque[Future[tuple[ReceiptRow, SampleRecord | BadShard | OSError]]] = deque()
        begun.extend(pool.submit(read, row) for row in islice(waiting, _AHEAD))
        while begun:
            done = begun.popleft().result()
            begun.extend(pool.submit(read, row) for row in islice(waiting, 1))
            yield done
    finally:
        pool.shutdown(cancel_futures=True)


def _last_member(tail: bytes, name: str) -> bytes | None:
    """The data of the last member of a piece of tar, if it begins in `tail` and has this name."""
    wanted = name.encode() + b"\0"
    # Backwards, since the data of a member before may hold anything; JSON holds no such block.
    for start in range(len(tail) - BLOCK, -1, -BLOCK):
        if not tail.startswith(wanted, start):
            continue
        try:
            member = parse_header(tail[start : start + BLOCK], start, name)
        except BadShard:
            continue
        if member.name == name and member.offset + member.size + padding(member.size) == len(tail):
            return tail[member.offset : member.offset + member.size]
    return None
