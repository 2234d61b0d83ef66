"""The bytes of an item, with every way they can be bad named: too large, not JSON, of another shape."""

from __future__ import annotations

import math
import reprlib
from typing import Any

import orjson

from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.limits import FileTooLarge
from trackmill.pipeline.storage.ranges import Place

MAX_ANNOTATION_BYTES = 64 << 20
"""Largest annotation file that is parsed: SA-V's are a few MB, and parsed JSON takes up to 22 times its size in memory
(a list of empty objects)."""

MAX_OBJECTS = 10_000
"""Most annotated objects of a picture or a video: SA-1B has some hundred a picture, at most some five hundred."""

_EXACT = 1 << 53
"""Up to here every whole number is a float of its own."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


def fetch_bytes(uri: str, offset: int = -1, length: int = -1, *, max_bytes: int, size: int | None = None) -> bytes:
    """Bytes of a file or of a range of it; `size` is that of the file where a listing told it.

    Raises:
        BadItem: more than `max_bytes`.
        OSError: could not be fetched.
    """
    try:
        return read_bytes(uri, offset, length, max_bytes=max_bytes, size=size)
    except FileTooLarge as error:
        raise BadItem(f"{error}; raise `read.max_item_bytes` if it is meant to be so large") from None


def fetch_json(where: str | Place) -> dict[str, Any]:
    """A JSON object, in a file or in a part of one.

    Raises:
        BadItem: larger than `MAX_ANNOTATION_BYTES`, not JSON, or not an object.
        OSError: could not be fetched.
    """
    place = Place(where) if isinstance(where, str) else where
    try:
        data = read_bytes(place.uri, place.offset, place.length, max_bytes=MAX_ANNOTATION_BYTES)
    except FileTooLarge as error:
        raise BadItem(f"{error} for annotations") from None
    try:
        document = orjson.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise BadItem(f"{place.name}: not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadItem(f"{place.name}: expected a JSON object, found {type(document).__name__}")
    return document


def required(record: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """`record[key]`, checked.

    Raises:
        BadItem: `record` is no object, lacks the key, or holds something else there; names `where` and the key.
    """
    if not isinstance(record, dict):
        raise BadItem(f"{where}: expected a JSON object, found {type(record).__name__}")
    if key not in record:
        raise BadItem(f"{where}: {key!r} is missing")
    value = record[key]
    wanted = kind if isinstance(kind, tuple) else (kind,)
    # JSON's true is a Python int; nothing here is ever meant to be a truth value.
    if isinstance(value, bool) or not isinstance(value, wanted):
        names = " or ".join(each.__name__ for each in wanted)
        raise BadItem(f"{where}: {key!r} should be {names}, found {type(value).__name__}")
    return value


def shown(value: Any) -> str:
    """A value for a message: a list of a million numbers, or a text of a megabyte, is cut."""
    return _SHORT.repr(value)


def whole_number(value: Any, where: str) -> int:
    """An integer that JSON may hold as `848.0`.

    Raises:
        BadItem: it is not a whole number, or one that is stored in 64 bits (of a float, in 53) as another.
    """
    is_number = not isinstance(value, bool) and isinstance(value, int | float)
    if not is_number or not (isinstance(value, int) or (math.isfinite(value) and value.is_integer())):
        raise BadItem(f"{where}: expected a whole number, found {shown(value)}")
    check_whole(value, where)
    return int(value)


def check_whole(value: float, where: str) -> None:
    """Raise `BadItem` for a whole number that would become another one when it is stored."""
    if not (-(1 << 63) <= value < 1 << 63) or (isinstance(value, float) and abs(value) > _EXACT):
        raise BadItem(
            f"{where}: {shown(value)} is too large: whole numbers are stored in 64 bits, and those that are written "
            "with a point are exact up to 2 to the 53"
        )


def confidence(value: Any, where: str) -> float:
    """A score, cut to 0..1 (a predicted IoU may come out slightly above one).

    Raises:
        BadItem: it is not a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadItem(f"{where}: expected a score, found {shown(value)}")
    return min(1.0, max(0.0, float(value)))
