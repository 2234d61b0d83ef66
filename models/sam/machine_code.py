"""Loops over masks as machine code, by Numba; kept in its cache where there is a place for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def machine_code(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a function when it is first called; it then runs without the interpreter's lock. A decorator.

    Where neither the code nor the home folder can be written and `NUMBA_CACHE_DIR` names no place, as in a container,
    Numba refuses to make a cache: each process then compiles for itself, which takes seconds.

    Args:
        function: of NumPy arrays and numbers.
        options: further ones of `numba.njit`.
    """
    if function is None:
        return lambda given: machine_code(given, **options)
    try:
        return numba.njit(nogil=True, cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(nogil=True, **options)(function)
