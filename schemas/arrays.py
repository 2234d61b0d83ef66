"""Arrays out of what a caller hands over: nested lists, NumPy arrays of any type and order, torch tensors anywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_WHOLE_IN_FLOAT32, _WHOLE_IN_FLOAT64 = 2.0**24, 2.0**53
"""Up to here every whole number is one of the type; beyond it a fraction may have been rounded away unseen."""


def float_array(value: Any, name: str) -> NDArray[np.float32]:
    """A float32 array in C order, at least one-dimensional.

    Values beyond float32 become infinite, so whoever checks for finite numbers refuses them.

    Args:
        value: numbers; a torch tensor is taken from its device in one transfer.
        name: of the argument, for errors.

    Raises:
        ValueError: not numbers, or rows of different lengths.
    """
    array = _array(value, name)
    if array.dtype != np.float32:
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
    return np.ascontiguousarray(array)  # the same memory order gives the same rounding of sums


def whole_array(value: Any, name: str) -> NDArray[np.int64]:
    """An int64 array, at least one-dimensional; floats are taken where they are whole numbers.

    Raises:
        ValueError: not numbers, a fraction, or too large to tell; names the row.
    """
    array = np.atleast_1d(_array(value, name))
    if array.dtype.kind == "f":
        limit = _WHOLE_IN_FLOAT64 if array.dtype == np.float64 else _WHOLE_IN_FLOAT32
        whole = (np.abs(array) <= limit) & (array == np.floor(array))  # false for NaN
        if not whole.all():
            row = int(np.argwhere(~whole)[0, 0])
            raise ValueError(f"{name}: row {row} is not a whole number, found {array[row].tolist()}")
    return np.ascontiguousarray(array.astype(np.int64, copy=False))


def _array(value: Any, name: str) -> NDArray[Any]:
    if hasattr(value, "detach"):  # a torch tensor; torch itself is not needed here
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"{name}: rows of different lengths do not make an array") from None
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be numbers, not {array.dtype}")
    return array
