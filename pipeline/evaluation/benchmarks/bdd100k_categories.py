"""BDD100K's categories: the 8 classes that are scored, other names for them, and look-alikes that are not scored.

Names and numbers are those of the Scalabel toolkit, branch scalabel-evalAPI, commit 9a48ee4 (`eval/box_track.py`,
`eval/hota.py`).
"""

from __future__ import annotations

CLASSES = {
    "pedestrian": 1,
    "rider": 2,
    "car": 4,
    "truck": 6,
    "bus": 5,
    "train": 7,
    "motorcycle": 10,
    "bicycle": 11,
}
"""Number of each scored class, in the order of BDD100K's tables."""

SUPER_CATEGORIES = {
    "human": ("pedestrian", "rider"),
    "vehicle": ("car", "truck", "bus", "train"),
    "bike": ("motorcycle", "bicycle"),
}
"""Classes that are also reported together."""

DISTRACTORS = {3: CLASSES["pedestrian"], 8: CLASSES["truck"], 9: CLASSES["car"]}
"""For `other person`, `trailer` and `other vehicle`: the scored class that they look like."""

CATEGORIES = {
    **CLASSES,
    "other person": 3,
    "trailer": 8,
    "other vehicle": 9,
    # Names of earlier releases and of other BDD100K tasks.
    "person": CLASSES["pedestrian"],
    "bike": CLASSES["bicycle"],
    "motor": CLASSES["motorcycle"],
    "van": CLASSES["car"],
    "caravan": CLASSES["car"],
}
"""Number of every category name that a file may hold."""
