"""Trackmill: mine pictures and videos into shards, train association models on them, track anything.

In a checkout the folders `jobs`, `models`, `pipeline` and `schemas` lie beside this one; an installed package has them
inside. Either way they are imported as `trackmill.models` and so on, so nobody's own `models/` is in the way.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trackmill.models.sam import FastMaskGenerator
    from trackmill.pipeline.evaluation.api import evaluate
    from trackmill.pipeline.tracking.api import VideoTracker
    from trackmill.pipeline.tracking.encoder import AppearanceEncoder

__version__ = "0.1.0"
__all__ = ["AppearanceEncoder", "FastMaskGenerator", "VideoTracker", "__version__", "evaluate"]

_HERE = Path(__file__).resolve().parent
if not (_HERE / "models").is_dir():
    __path__.append(str(_HERE.parent))

_WHERE = {
    "AppearanceEncoder": "trackmill.pipeline.tracking.encoder",
    "FastMaskGenerator": "trackmill.models.sam",
    "VideoTracker": "trackmill.pipeline.tracking.api",
    "evaluate": "trackmill.pipeline.evaluation.api",
}


def __getattr__(name: str) -> Any:
    """Import what is named when it is first used: most of it needs torch, which takes seconds."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
