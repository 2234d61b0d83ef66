"""What dead processes left unfinished in a data set, in whichever of its folders."""

from __future__ import annotations

from pathlib import Path

from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.storage.scratch import sweep_scratch
from trackmill.pipeline.storage.urls import filesystem, is_local


def sweep_output(layout: Layout) -> None:
    """Remove the scratch files of dead processes of this machine; see `sweep_scratch`.

    Args:
        layout: of a data set. On an object store there is nothing to remove: scratch files lie elsewhere.
    """
    if not is_local(layout.root):
        return
    sidecars = Path(filesystem(layout.sidecars)[1])
    for folder in (*layout.folders, *(str(each) for each in sidecars.glob("*/"))):
        sweep_scratch(folder)
