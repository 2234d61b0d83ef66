"""Lists of JSON objects from a file, one checked column at a time; an error names file, index and key.

Columns are taken and checked as a whole; only when one is broken are its cells looked at one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.formats.segmentations import brief

LONGEST = 1e9
"""No coordinate of a box lies further out, in pixels; areas and sums stay exact enough below it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonObjects:
    """A list of JSON objects and where it comes from.

    Args:
        items: the objects.
        path: file and key path of the list, such as `gt.json: annotations`.
    """

    items: list[dict[str, Any]]
    path: str

    def __len__(self) -> int:
        return len(self.items)

    def where(self, index: int, key: str = "") -> str:
        """File and key path of an object or of one of its values."""
        return f"{self.path}[{index}].{key}" if key else f"{self.path}[{index}]"

    def has(self, key: str) -> bool:
        """Whether any object has the key with a value."""
        return any(item.get(key) is not None for item in self.items)

    def column(self, key: str) -> list[Any]:
        """The value of each.

        Raises:
            BadTracks: an object without it.
        """
        try:
            return list(map(itemgetter(key), self.items))
        except KeyError:
            index = next(i for i, item in enumerate(self.items) if key not in item)
            raise BadTracks(f"{self.where(index)}: has no {key!r}") from None

    def integers(self, key: str) -> NDArray[np.int64]:
        """(N,) whole numbers.

        Raises:
            BadTracks: an object without the key, or another value.
        """
        return whole_numbers(self.column(key), lambda index: self.where(index, key))

    def numbers(self, key: str) -> NDArray[np.float64]:
        """(N,) finite numbers.

        Raises:
            BadTracks: an object without the key, or another value.
        """
        values = self.column(key)
        if set(map(type, values)) <= {int, float}:
            found = np.array(values, np.float64)
            bad = np.flatnonzero(~np.isfinite(found))
            if not len(bad):
                return found
            index = int(bad[0])
        else:
            index = next(i for i, value in enumerate(values) if type(value) not in (int, float))
        raise BadTracks(f"{self.where(index, key)}: should be a finite number, found {brief(values[index])}")

    def texts(self, key: str) -> list[str]:
        """The text of each.

        Raises:
            BadTracks: an object without the key, or another value.
        """
        values = self.column(key)
        for index, value in enumerate(values):
            if type(value) is not str:
                raise BadTracks(f"{self.where(index, key)}: should be text, found {brief(value)}")
        return values

    def boxes(self, key: str = "bbox") -> NDArray[np.float64]:
        """(N, 4) float64 boxes `xyxy`, from `[x, y, width, height]`.

        Raises:
            BadTracks: an object without the key, or a value that is no box.
        """
        values = self.column(key)
        if not values:
            return np.zeros((0, 4))
        lists = set(map(type, values)) == {list} and set(map(len, values)) == {4}
        if lists and set(map(type, chain.from_iterable(values))) <= {int, float}:
            boxes = np.array(list(chain.from_iterable(values)), np.float64).reshape(-1, 4)
            with np.errstate(invalid="ignore"):
                bad = np.flatnonzero(~(np.abs(boxes) <= LONGEST).all(axis=1) | (boxes[:, 2:] < 0).any(axis=1))
            if not len(bad):
                boxes[:, 2:] += boxes[:, :2]
                return boxes
            index = int(bad[0])
        else:
            index = next(i for i, value in enumerate(values) if not _is_box(value))
        value = values[index]
        if _is_box(value) and min(value[2:]) < 0:
            raise BadTracks(f"{self.where(index, key)}: width and height should not be negative, found {brief(value)}")
        raise BadTracks(
            f"{self.where(index, key)}: should be [x, y, width, height], finite and in pixels, found {brief(value)}"
        )


def objects(value: Any, path: str) -> JsonObjects:
    """A list of JSON objects.

    Raises:
        BadTracks: no list, or something else in it.
    """
    if not isinstance(value, list):
        raise BadTracks(f"{path.rstrip(': ')}: should be a list of objects, found {brief(value)}")
    if not set(map(type, value)) <= {dict}:
        index = next(i for i, item in enumerate(value) if type(item) is not dict)
        raise BadTracks(f"{path}[{index}]: should be an object, found {brief(value[index])}")
    return JsonObjects(items=value, path=path)


def whole_numbers(values: Sequence[Any], where: Callable[[int], str]) -> NDArray[np.int64]:
    """(N,) whole numbers; 3.0 is one too.

    Args:
        values: from a file.
        where: file and key path of a value, for the error.

    Raises:
        BadTracks: another value, or one of more than 64 bits.
    """
    kinds = set(map(type, values))
    if kinds <= {int}:
        try:
            return np.array(values, np.int64)
        except OverflowError:
            pass
    elif kinds <= {int, float}:
        found = np.array(values, np.float64)
        with np.errstate(invalid="ignore"):
            if ((np.abs(found) < 2**53) & (found == np.floor(found))).all():
                return found.astype(np.int64)
    index = next(i for i, value in enumerate(values) if not _is_whole(value))
    raise BadTracks(f"{where(index)}: should be a whole number, found {brief(values[index])}")


def _is_whole(value: Any) -> bool:
    if type(value) is float:
        return abs(value) < 2**53 and value == int(value)
    return type(value) is int and -(2**63) <= value < 2**63


def _is_box(value: Any) -> bool:
    """Whether it is four numbers, maybe negative ones; too large ones fail, as does everything not finite."""
    return (
        type(value) is list
        and len(value) == 4
        and all(type(number) in (int, float) and abs(number) <= LONGEST for number in value)
    )
