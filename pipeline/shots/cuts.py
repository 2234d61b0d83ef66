"""Which way cuts are found, fixed once by the driver: `auto` takes the network where it is installed.

Whichever it is, a frame that shows nothing is in no shot: what fades to black and out of it again is cut there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.shots.histogram import histogram_cuts
from trackmill.pipeline.shots.small_frames import flat_frames

_VERSION = "1"
"""Raised whenever the same frames may give other cuts."""

Cuts = Literal["auto", "transnet", "histogram", "none"]

FindCuts = Callable[[NDArray[np.uint8]], NDArray[np.bool_]]
"""Of small frames (T, 27, 48, 3) uint8 RGB: (T - 1,) whether frame t + 1 belongs to another shot than frame t."""


def resolve_cuts(cuts: Cuts) -> Cuts:
    """`auto` as what it comes to on this machine; the others as they are.

    Raises:
        MissingPackage: the network is asked for and is not installed; says what to type.
    """
    from trackmill.pipeline.shots.transnet import has_transnet, transnet_identity

    if cuts == "auto":
        return "transnet" if has_transnet() else "histogram"
    if cuts == "transnet":
        transnet_identity()
    return cuts


def cuts_identity(cuts: Cuts) -> dict[str, str]:
    """What besides the choice decides which cuts are found: versions and weights, by name; see `resolve_cuts`."""
    if cuts == "none":
        return {}
    from trackmill.pipeline.shots.transnet import transnet_identity

    return {"cuts_version": _VERSION, **(transnet_identity() if cuts == "transnet" else {})}


def cut_finder(cuts: Cuts, device: str = "auto") -> FindCuts | None:
    """Who finds them; None for `none`.

    Raises:
        MissingPackage, BadWeights: see `trackmill.pipeline.shots.transnet.TransNet`.
    """
    if cuts == "none":
        return None
    if cuts == "transnet":
        from trackmill.pipeline.shots.transnet import TransNet

        return partial(_with_flat, find=TransNet(device).cuts)
    assert cuts == "histogram", f"{cuts}: resolve_cuts comes first"
    return partial(_with_flat, find=histogram_cuts)


def _with_flat(frames: NDArray[np.uint8], find: FindCuts) -> NDArray[np.bool_]:
    """What was found, and the two ends of every frame that shows nothing: it belongs to no shot."""
    flat = flat_frames(frames)
    return find(frames) | flat[:-1] | flat[1:]
