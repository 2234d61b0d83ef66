"""Detections in the forms in which people have them, made one record, or a plain sentence where that cannot be."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from trackmill.schemas.arrays import float_array
from trackmill.schemas.detections import Detections, make_detections
from trackmill.schemas.errors import InputError

FORMS = (
    "supervision.Detections; ultralytics' Results or Boxes; an array of boxes (N, 4), with scores (N, 5), with scores "
    "and classes (N, 6); a tuple of boxes, scores and labels; or a dictionary of these"
)


def as_detections(detections: Any) -> Detections:
    """Detections in one of the forms that `VideoTracker.update` takes; boxes are `x0, y0, x1, y1`.

    Args:
        detections: `Detections`, `supervision.Detections`, `Results` or `Boxes` of ultralytics; an array (N, 4), (N, 5)
            with scores, or (N, 6) with scores and classes, as boxmot and ultralytics have them; a tuple of boxes,
            scores and labels, of which the latter may be left out or None; or a mapping with these names, as
            torchvision's detectors give.

    Raises:
        ValueError: another form, or as `Detections`.
    """
    if isinstance(detections, Detections):
        return detections
    if is_supervision(detections):
        return make_detections(detections.xyxy, detections.confidence, detections.class_id)
    if hasattr(detections, "boxes") and hasattr(detections, "orig_shape"):
        detections = detections.boxes
    if all(hasattr(detections, name) for name in ("xyxy", "conf", "cls")):
        return _of_columns(detections.xyxy, detections.conf, detections.cls)
    if isinstance(detections, Mapping):
        if "boxes" not in detections:
            raise InputError(f"detections: a dictionary should have 'boxes', found {', '.join(map(str, detections))}")
        return _of_columns(detections["boxes"], detections.get("scores"), detections.get("labels"))
    if isinstance(detections, tuple):
        if not 1 <= len(detections) <= 3:
            raise InputError(f"detections: a tuple should be boxes, scores, labels; found {len(detections)} things")
        return _of_columns(*detections)
    if hasattr(detections, "xy"):
        raise InputError(f"detections: {type(detections).__name__} are no boxes; hand over the boxes around the points")
    if not isinstance(detections, (list, np.ndarray)) and not hasattr(detections, "detach"):
        raise InputError(f"detections: cannot use {type(detections).__name__}; hand over {FORMS}")
    return _of_columns(detections)


def is_supervision(detections: Any) -> bool:
    """Whether these are `supervision.Detections`: whoever hands one over has imported the package."""
    module = sys.modules.get("supervision")
    return module is not None and isinstance(detections, module.Detections)


def _of_columns(boxes: Any, scores: Any = None, labels: Any = None) -> Detections:
    for name, column in (("boxes", boxes), ("scores", scores), ("labels", labels)):
        _refuse_words(name, column)
    array = float_array(boxes, "boxes")
    width = array.shape[-1] if array.ndim > 1 else 0
    if array.ndim == 2 and 4 < width <= 6 and len(array):
        if scores is not None or labels is not None:
            raise InputError(f"boxes: (N, {width}) hold scores already; give boxes (N, 4) beside scores and labels")
        return make_detections(array[:, :4], array[:, 4], array[:, 5] if width == 6 else None)
    if array.size and (array.ndim != 2 or width != 4):
        hint = ""
        if array.ndim == 3:
            hint = ", which looks like key points or polygons; hand over the boxes around them"
        elif array.shape == (4,):
            hint = f"; one box is [{array.tolist()}]"
        forms = "(N, 4), (N, 5) with scores or (N, 6) with scores and classes"
        raise InputError(f"boxes: should be of shape {forms}, found {array.shape}{hint}")
    return make_detections(array, scores, labels)


def _refuse_words(name: str, column: Any) -> None:
    """NumPy speaks of `<U3` and `object` where people handed over words or nothing."""
    if column is None and name == "boxes":
        raise InputError("boxes: None is no array; hand over [] where nothing was found")
    for value in () if column is None else _leaves(column):
        if isinstance(value, str):
            mend = "; number the classes, such as names.index(label)" if name == "labels" else ""
            raise InputError(f"{name}: should be numbers, found {value!r}{mend}")
        if value is None or isinstance(value, Mapping):
            raise InputError(f"{name}: should be numbers, found {value!r}")


def _leaves(column: Any) -> Iterator[Any]:
    """What stands in nested lists, tuples and arrays that are not of numbers."""
    if isinstance(column, np.ndarray):
        column = [] if column.dtype.kind in "biuf" else column.tolist()
    if isinstance(column, (list, tuple)):
        for each in column:
            yield from _leaves(each)
    else:
        yield column
