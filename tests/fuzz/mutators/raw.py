"""Changes of bytes that know nothing of a format: what disks, networks and impatient people do to files."""

from __future__ import annotations

from random import Random

from tests.fuzz.target import Mutator

EXTREMES = (
    *(0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536),
    *(2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -1, -2, -512, -1536),
)
"""Integers at which counters turn over, allocations fail and loops never end."""


def flip_bits(rng: Random, data: bytes) -> bytes:
    """A few bits, anywhere."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16)) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def set_bytes(rng: Random, data: bytes) -> bytes:
    """A few bytes, to any value."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8)) if changed else 0):
        changed[rng.randrange(len(changed))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(changed)


def cut(rng: Random, data: bytes) -> bytes:
    """The file ends early: by a few bytes, or anywhere."""
    return data[: rng.choice((len(data) - rng.randint(1, 16), rng.randrange(len(data) + 1)))] if data else data


def extend(rng: Random, data: bytes) -> bytes:
    """Zeros, noise, or the file once more behind its end."""
    length = rng.choice((1, 16, 512, 4096))
    return data + rng.choice((b"\0" * length, rng.randbytes(length), data, b"\xff" * length))


def drop_block(rng: Random, data: bytes) -> bytes:
    """A block is missing."""
    begin, end = _span(rng, data)
    return data[:begin] + data[end:]


def repeat_block(rng: Random, data: bytes) -> bytes:
    """A block stands there several times."""
    begin, end = _span(rng, data)
    times = rng.choice((2, 2, 3, 17))
    if rng.random() < 0.05 and end - begin < 64:
        times = 20_000
    return data[:begin] + data[begin:end] * times + data[end:]


def move_block(rng: Random, data: bytes) -> bytes:
    """A block is overwritten by another of the same file."""
    begin, end = _span(rng, data)
    target = rng.randrange(len(data) + 1)
    return data[:target] + data[begin:end] + data[target + end - begin :]


def blank_block(rng: Random, data: bytes) -> bytes:
    """A block of zeros, as sparse files and lost pages have them."""
    begin, end = _span(rng, data)
    return data[:begin] + b"\0" * (end - begin) + data[end:]


def set_integer(rng: Random, data: bytes) -> bytes:
    """An integer of 1 to 8 bytes, in either order, becomes extreme; mostly near the beginning, where headers are."""
    return put_integer(rng, data, rng.randrange(min(len(data), rng.choice((64, 512, len(data) + 1)))) if data else 0)


def put_integer(rng: Random, data: bytes, place: int, width: int = 0, order: str = "") -> bytes:
    """An extreme integer at a place."""
    width = width or rng.choice((1, 2, 4, 4, 8))
    value = rng.choice(EXTREMES) % (1 << 8 * width)
    written = value.to_bytes(width, order or rng.choice(("little", "big")))  # type: ignore[arg-type]
    return data[:place] + written + data[place + width :]


def empty(rng: Random, data: bytes) -> bytes:
    """Nothing is left."""
    return b""


def other_format(rng: Random, data: bytes) -> bytes:
    """The beginning of something else entirely."""
    heads = (b"<html>404</html>", b"PK\3\4", b"\x1f\x8b\x08", b"\xff\xfe", b"\xef\xbb\xbf", b"#!/bin/sh\n", b"GIF89a")
    head = rng.choice(heads)
    return head + data[len(head) :] if rng.random() < 0.5 else head + data


BYTES: tuple[Mutator, ...] = (
    flip_bits,
    flip_bits,
    flip_bits,
    set_bytes,
    cut,
    cut,
    extend,
    drop_block,
    repeat_block,
    move_block,
    blank_block,
    set_integer,
    set_integer,
    set_integer,
    empty,
    other_format,
)


def _span(rng: Random, data: bytes) -> tuple[int, int]:
    begin = rng.randrange(len(data) + 1)
    return begin, min(len(data), begin + rng.choice((1, 4, 16, 64, 512, 4096)))
