"""Whether a Matroska or WebM file was cut short or damaged: every element says how many bytes follow (RFC 8794, 9559).

FFmpeg passes over what it cannot read and goes on at the next cluster, without a word of what is missing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import IO

_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
_EMPTY = {0xEC, 0xBF}  # Void, CRC-32
# Cluster; SeekHead, Info, Tracks, Cues, Attachments, Chapters, Tags
_OF_SEGMENT = {_CLUSTER, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367} | _EMPTY
# Timestamp, SimpleBlock, BlockGroup, PrevSize, Position, SilentTracks, EncryptedBlock
_OF_CLUSTER = {0xE7, 0xA3, 0xA0, 0xAB, 0xA7, 0x5854, 0xAF} | _EMPTY
_BLOCK_HEAD = 32
"""Bytes within which the block of a group begins, whose place FFmpeg gives as that of its frame."""

_SEARCHED_AT_ONCE = 1 << 20


def missing_bytes(handle: IO[bytes]) -> int:
    """How many bytes the file lacks at its end; 0 where it is whole, says no length, or is no Matroska.

    A recording that was streamed or ended by a crash says no length: whether it is whole cannot be known.

    Args:
        handle: seekable; its position stays, since a container that reads from it goes on there.
    """
    before = handle.tell()
    try:
        return _missing(handle, handle.seek(0, 2))
    finally:
        handle.seek(before)


def find_damage(handle: IO[bytes], most: int) -> list[int]:
    """Places in the file just within elements behind which no other one follows, though one should.

    Such an element may be whole, or be what lacks its end: then bytes of the next ones were taken for its own. After
    `most` places no more are looked for. The handle's position stays as it is.
    """
    before = handle.tell()
    try:
        return list(itertools.islice(_damage(handle, handle.seek(0, 2)), most))
    finally:
        handle.seek(before)


def _damage(handle: IO[bytes], end: int) -> Iterator[int]:
    handle.seek(0)
    for element in (_EBML, _SEGMENT):
        if _number(handle, keep_marker=True) != element:
            return
        size = _number(handle, keep_marker=False)
        if element == _EBML and size is None:
            return
        if element == _EBML:
            handle.seek(size or 0, 1)
    cluster_end = 0  # of the cluster that is being read; 0 outside of one
    body = handle.tell()
    while True:
        last, position = body, handle.tell()
        if position >= end:
            return
        within = position < cluster_end
        name = _number(handle, keep_marker=True)
        size = _number(handle, keep_marker=False)
        body = handle.tell()
        known = name in _OF_SEGMENT or (within and name in _OF_CLUSTER)
        if not known and size is not None:  # somebody's own element, where another one follows
            handle.seek(body + size)
            known = body + size < end and _number(handle, keep_marker=True) in _OF_SEGMENT | _OF_CLUSTER
            handle.seek(body)
        past = within and size is not None and cluster_end != end and body + size > cluster_end
        if not known or past or (size is None and name != _CLUSTER):
            yield min(last + _BLOCK_HEAD, position) + 1
            found = _next_cluster(handle, position + 1)
            if found is None:
                return
            handle.seek(found)
            cluster_end = 0
        elif name == _CLUSTER:
            cluster_end = end if size is None else body + size
        else:
            handle.seek(size or 0, 1)


def _next_cluster(handle: IO[bytes], position: int) -> int | None:
    name = _CLUSTER.to_bytes(4, "big")
    while True:
        handle.seek(position)
        data = handle.read(_SEARCHED_AT_ONCE)
        place = data.find(name)
        if place >= 0:
            return position + place
        if len(data) < _SEARCHED_AT_ONCE:
            return None
        position += len(data) - len(name) + 1


def _missing(handle: IO[bytes], end: int) -> int:
    handle.seek(0)
    for element in (_EBML, _SEGMENT):
        if _number(handle, keep_marker=True) != element:
            return 0
        size = _number(handle, keep_marker=False)
        if size is None:
            return 0
        if element == _SEGMENT:
            return max(0, handle.tell() + size - end)
        handle.seek(size, 1)
    return 0


def _number(handle: IO[bytes], keep_marker: bool) -> int | None:
    """A number of 1 to 8 bytes whose first bit that is set says how many; None where it is unknown or not there."""
    first = handle.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    rest = handle.read(length - 1)
    if len(rest) != length - 1:
        return None
    value = int.from_bytes(first + rest, "big")
    if keep_marker:
        return value
    value &= (1 << 7 * length) - 1
    return None if value == (1 << 7 * length) - 1 else value
