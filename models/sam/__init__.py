"""Segment Anything with the same numbers in less time: models, their checkpoints, and automatic mask generation.

`load` reads a checkpoint and returns a model; `FastMaskGenerator` takes that model. Both need the `sam` extra.
Importing this package does not need it: each name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trackmill.models.sam.generator import FastMaskGenerator
    from trackmill.models.sam.loading import load
    from trackmill.models.sam.segmenter import (
        Decoded,
        Features,
        PreparedImage,
        PromptableSegmenter,
        ResizeChain,
        ResizeStage,
    )

_HOMES = {
    "FastMaskGenerator": "generator",
    "load": "loading",
    **dict.fromkeys(
        ("Decoded", "Features", "PreparedImage", "PromptableSegmenter", "ResizeChain", "ResizeStage"), "segmenter"
    ),
}

__all__ = [
    "Decoded",
    "FastMaskGenerator",
    "Features",
    "PreparedImage",
    "PromptableSegmenter",
    "ResizeChain",
    "ResizeStage",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
