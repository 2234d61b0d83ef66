"""Whether an accelerator still works after an error."""

from __future__ import annotations


def is_device_failure(error: Exception) -> bool:
    """Whether an error means that the CUDA context is gone: every later call in this process would fail as well."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return "AcceleratorError" in names or ("CUDA error" in str(error) and "out of memory" not in str(error))
