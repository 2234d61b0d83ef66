"""Trackmill: mine pictures and videos into shards, train association models on them, track anything.

In a checkout the folders `jobs`, `models`, `pipeline` and `schemas` lie beside this one; an installed package has them
inside. Either way they are imported as `trackmill.models` and so on, so nobody's own `models/` is in the way.
"""

from __future__ import annotations

from pathlib import Path

__version__ = "0.1.0"

_HERE = Path(__file__).resolve().parent
if not (_HERE / "models").is_dir():
    __path__.append(str(_HERE.parent))
