"""Where a model runs: a device of torch that is really there, and whether it still works after an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackmill.models.weights.errors import MissingPackage
from trackmill.schemas.errors import InputError
from trackmill.schemas.install import install

if TYPE_CHECKING:
    import torch


def choose_device(name: str = "auto") -> torch.device:
    """A device; `auto` is the first GPU where there is one, else the CPU.

    Raises:
        ValueError: no such device here.
        MissingPackage: torch is missing; says what to type.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingPackage(f"models need torch and more: {install('masa')}") from error
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(name)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return place


def is_device_failure(error: Exception) -> bool:
    """Whether an error means that the CUDA context is gone: every later call in this process would fail as well."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return "AcceleratorError" in names or ("CUDA error" in str(error) and "out of memory" not in str(error))
