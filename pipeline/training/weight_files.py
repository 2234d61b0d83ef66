"""Files of weights, as training, export and conversion write them: whole or not at all, and never with NaN."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.publish import publish_file
from trackmill.pipeline.storage.scratch import scratch_file
from trackmill.pipeline.training.health import NonFinite
from trackmill.schemas.errors import StorageError


def check_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    """Refuse to write weights that are no numbers: whoever goes on from them, or uses them, gets nothing else.

    Raises:
        NonFinite: names some.
    """
    bad = [name for name, each in tensors.items() if each.is_floating_point() and not bool(each.isfinite().all())]
    if bad:
        shown = ", ".join(bad[:4]) + (f" and {len(bad) - 4} more" if len(bad) > 4 else "")
        raise NonFinite(
            f"{what} would hold nan or infinity ({shown}), so it is not written; the one before is whole, and the same "
            "command goes on from it. Lower optim.lr, train in float32, or look at the data of the last steps"
        )


def write_tensors(url: str, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> dict[str, Any]:
    """A safetensors file, whole or not at all; returns its length and SHA-256.

    Raises:
        OSError: it cannot be written; says where.
    """
    local = scratch_file(url)
    mode = local.stat().st_mode
    try:
        # Tied weights share memory, which the format refuses: each name gets its own copy.
        seen: set[int] = set()
        apart: dict[str, Tensor] = {}
        for name, values in tensors.items():
            values = values.detach().cpu().contiguous()
            shared = values.untyped_storage().data_ptr()
            apart[name] = values.clone() if shared in seen else values
            seen.add(shared)
        try:
            save_file(apart, local, metadata)
        except SafetensorError as error:
            raise _as_os_error(error, url) from error
        local.chmod(mode)  # safetensors makes files that only their owner may read
        with open(local, "rb") as handle:
            record = {"bytes": local.stat().st_size, "sha256": hashlib.file_digest(handle, "sha256").hexdigest()}
        publish_file(local, url)
    finally:
        local.unlink(missing_ok=True)
    return record


def _as_os_error(error: SafetensorError, url: str) -> OSError:
    """What the operating system said, which safetensors has in its text alone."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    if number is None:
        return StorageError(f"{redact(url)}: {error}")
    return OSError(int(number[1]), os.strerror(int(number[1])), redact(url))
