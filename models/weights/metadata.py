"""The header of our own safetensors files: what a model needs to know beside its tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from trackmill.schemas.errors import InputError

_KEY = "trackmill"


def to_header(facts: Mapping[str, Any]) -> dict[str, str]:
    """Facts (`variant`, how it was trained, ...) as safetensors' metadata takes them."""
    # One entry, since safetensors writes several in an order of its own each time.
    return {_KEY: json.dumps(dict(facts), sort_keys=True)}


def from_header(header: Mapping[str, str] | None, where: str) -> dict[str, Any]:
    """The facts again; empty for files of others.

    Raises:
        ValueError: the entry is not what `to_header` writes.
    """
    written = (header or {}).get(_KEY, "{}")
    try:
        facts = json.loads(written)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise InputError(f"{where}: its metadata {_KEY!r} is not what trackmill writes: {written[:80]}")
    return facts
