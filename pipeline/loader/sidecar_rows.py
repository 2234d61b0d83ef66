"""Rows of a sidecar that must have certain columns: whoever names the wrong sidecar is told what it holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from numpy.typing import NDArray

from trackmill.pipeline.loader.contract import StoredSample
from trackmill.pipeline.sidecars.about import SidecarError

CHAINS = ("chain", "box")
"""Columns of a sidecar of chains, see `trackmill.pipeline.sidecars.producers.chains`."""
DETECTIONS = ("box", "score")
"""Columns of a sidecar of detections or negatives."""
MADE_BY: dict[tuple[str, ...], str] = {CHAINS: "video-chains"}
"""Which producer makes a sidecar with these columns, where its name does not tell."""


def rows_with(sample: StoredSample, name: str, frame: int, columns: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The rows of a frame, see `StoredSample.sidecar`.

    Raises:
        SidecarError: a column is missing; names it and those that there are.
    """
    rows = sample.sidecar(name, frame)
    check_columns(name, rows, columns)
    return rows


def check_columns(name: str, there: Iterable[str], columns: Sequence[str]) -> None:
    """Refuse a sidecar without these columns.

    Raises:
        SidecarError: names what is missing and what there is.
    """
    there = list(there)
    for column in columns:
        if column not in there:
            kind = "no chains" if columns == CHAINS else "no boxes with scores"
            raise SidecarError(f"sidecar {name!r} holds {kind}: its columns are {', '.join(there)}, without {column!r}")
