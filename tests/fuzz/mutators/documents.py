"""Changes of JSON that leave it JSON, or nearly: other types, deep nesting, huge numbers, missing and doubled keys."""

from __future__ import annotations

import gzip
import json
import zlib
from functools import cache
from random import Random
from typing import Any

from tests.fuzz.target import Mutator

HUGE: tuple[Any, ...] = (
    *(0, -1, 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, 10**400),
    *(1e308, -1e308, 5e-324, 0.5, float("nan"), float("inf"), float("-inf")),
)
"""Numbers that some reader on the way cannot hold."""
TEXTS = (
    *(
        "",
        " ",
        "0",
        "1e999",
        "../../etc/passwd",
        "/absolute",
        "C:\\",
        "name\nwith a line",
        "\x1b[31mred",
        "\u202eright",
    ),
    *("\ud800", "\0", "é", "☃" * 50, "x" * 10_000, "%s%s%n", "http://user:pass@host/x", "null", "\ufeff"),
)
"""Texts that are no names, or bad ones."""


def any_value(rng: Random, depth: int = 0) -> Any:
    """A value of any type."""
    kind = rng.randrange(9)
    if kind == 0:
        return rng.choice(HUGE)
    if kind == 1:
        return rng.choice(TEXTS)
    if kind == 2:
        return rng.choice((None, True, False))
    if kind == 3:
        return []
    if kind == 4:
        return {}
    if kind == 5 and depth < 3:
        return [any_value(rng, depth + 1)] * rng.choice((1, 2, 4, 1000))
    if kind == 6 and depth < 3:
        return {rng.choice(TEXTS): any_value(rng, depth + 1)}
    return rng.randint(-3, 3)


def swap_value(rng: Random, data: bytes) -> bytes:
    """Some value becomes another one of any type."""
    return _edit(rng, data, lambda holder, key: holder.__setitem__(key, any_value(rng)))


def nudge_value(rng: Random, data: bytes) -> bytes:
    """A number becomes extreme, a text a bad one, a list longer or shorter; the type stays."""

    def nudge(holder: Any, key: Any) -> None:
        value = holder[key]
        if isinstance(value, bool) or value is None:
            holder[key] = not value
        elif isinstance(value, (int, float)):
            holder[key] = rng.choice((rng.choice(HUGE), value + 1, -value, value * 1000, float(value)))
        elif isinstance(value, str):
            holder[key] = rng.choice((rng.choice(TEXTS), value[1:], value * 3, value.upper(), f"{value}\n"))
        elif isinstance(value, list):
            holder[key] = rng.choice((value[1:], value[::-1], value * 2, value * 1000 if len(value) < 50 else value))
        else:
            holder[key] = dict(list(value.items())[1:])

    return _edit(rng, data, nudge)


def drop_value(rng: Random, data: bytes) -> bytes:
    """A key, or an element of a list, is missing."""
    return _edit(rng, data, lambda holder, key: holder.__delitem__(key))


def rename_key(rng: Random, data: bytes) -> bytes:
    """A key is spelt otherwise."""

    def rename(holder: Any, key: Any) -> None:
        if isinstance(holder, dict):
            holder[rng.choice((f"{key}s", key.upper(), f" {key}", rng.choice(TEXTS)))] = holder.pop(key)

    return _edit(rng, data, rename)


def double_key(rng: Random, data: bytes) -> bytes:
    """A key stands there twice, with another value."""
    at = data.find(b"{", rng.randrange(len(data)))
    begin = data.find(b'"', at)
    end = data.find(b'"', begin + 1)
    if at < 0 or begin < 0 or end < 0:
        return data
    value = json.dumps(any_value(rng)).encode()
    return data[: at + 1] + data[begin : end + 1] + b":" + value + b"," + data[at + 1 :]


def nest(rng: Random, data: bytes) -> bytes:
    """A value lies deep within lists or objects."""
    depth = rng.choice((10, 600, 1200, 3000, 100_000))
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"[[],", b"]")))
    begin = data.find(b":", rng.randrange(len(data))) + 1
    end = min((place for place in (data.find(each, begin) for each in (b",", b"}")) if place > 0), default=len(data))
    closed = closing * (depth if rng.random() < 0.7 else 0)
    return data[:begin] + opening * depth + (data[begin:end] or b"0") + closed + data[end:]


def long_number(rng: Random, data: bytes) -> bytes:
    """A number of thousands of digits."""
    begin = data.find(b":", rng.randrange(len(data))) + 1
    number = rng.choice((b"9" * 5000, b"0." + b"0" * 5000 + b"1", b"1e99999", b"-" * 20, b"0x10", b"1_000", b"+1"))
    return data[:begin] + number + data[data.find(b",", begin) if b"," in data[begin:] else len(data) :]


def many(rng: Random, data: bytes) -> bytes:
    """A list of very many small things."""
    count = rng.choice((10_000, 300_000))
    begin = data.find(b"[", rng.randrange(len(data))) + 1
    return data[:begin] + rng.choice((b"[],", b"0,", b"{},", b"null,", b'"",')) * count + data[begin:]


def write_otherwise(rng: Random, data: bytes) -> bytes:
    """The same document as other programs write it."""
    return rng.choice(
        (
            lambda: json.dumps(json.loads(data), indent=2).encode(),
            lambda: b"\xef\xbb\xbf" + data,
            lambda: data.decode().encode("utf-16"),
            lambda: data.replace(b",", b",\n"),
            lambda: b"// a comment\n" + data,
            lambda: data + b"\n" + data,
        )
    )()


JSON: tuple[Mutator, ...] = (
    *(swap_value,) * 4,
    *(nudge_value,) * 5,
    *(drop_value,) * 3,
    *(rename_key, double_key, nest, long_number, many, write_otherwise),
)


_UNFOLDED = 4 << 20
"""What unfolds to more is left as it is: here too it would take memory and time."""


def _repack(change: Mutator) -> Mutator:
    def repacked(rng: Random, data: bytes) -> bytes:
        unpacked = zlib.decompressobj(wbits=31).decompress(data, _UNFOLDED)
        if len(unpacked) == _UNFOLDED:
            raise ValueError("unfolds already")
        return gzip.compress(change(rng, unpacked), 1, mtime=0)

    return repacked


def unfold(rng: Random, data: bytes) -> bytes:
    """Kilobytes of gzip that become a hundred megabytes, or several streams."""
    return _unfolds(rng.choice((b"[],", b" ", b"0,", b"[")))


@cache
def _unfolds(filler: bytes) -> bytes:
    return gzip.compress(b"[" + filler * (100_000_000 // len(filler)) + b"0]", 1, mtime=0)


def two_streams(rng: Random, data: bytes) -> bytes:
    """Streams of gzip in a row, or one with something behind it."""
    return rng.choice((data + data, data + b"\0" * 600, data + b"garbage", data[:-8] + b"\0" * 8))


GZIP: tuple[Mutator, ...] = (*(_repack(change) for change in JSON), two_streams, unfold)


def _edit(rng: Random, data: bytes, change: Any) -> bytes:
    document = json.loads(data)
    places: list[tuple[Any, Any]] = []
    queue: list[Any] = [document]
    while queue and len(places) < 20_000:
        holder = queue.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            places.append((holder, key))
            if isinstance(holder[key], (dict, list)):
                queue.append(holder[key])
    if not places:
        return json.dumps(any_value(rng)).encode()
    # Leaves by the thousand would hide the few places near the root.
    change(*(places[rng.randrange(min(len(places), rng.choice((8, 64, len(places)))))]))
    return json.dumps(document).encode("utf-8", "surrogatepass")
