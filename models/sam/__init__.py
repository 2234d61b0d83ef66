"""Segment Anything, the same numbers in less time: models, their checkpoints, and everything mode.

`load` reads a checkpoint, `FastMaskGenerator` takes what it returns. Both need the `sam` extra; importing this package
does not: what is asked of it is imported then.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trackmill.models.sam.generator import FastMaskGenerator
    from trackmill.models.sam.loading import load
    from trackmill.models.sam.segmenter import Decoded, Features, Prepared, ResizeChain, ResizeStage, Segmenter

_HOMES = {
    "FastMaskGenerator": "generator",
    "load": "loading",
    **dict.fromkeys(("Decoded", "Features", "Prepared", "ResizeChain", "ResizeStage", "Segmenter"), "segmenter"),
}

__all__ = ["Decoded", "FastMaskGenerator", "Features", "Prepared", "ResizeChain", "ResizeStage", "Segmenter", "load"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
