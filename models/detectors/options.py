"""What may be asked of every detector alike: least score, classes, NMS, most boxes; and the one place that does it.

A detector derives its `Config` from `DetectorOptions` and says in `Detector.applies` which of the options it keeps
itself; `DetectorWithOptions` does the rest behind it. So the options mean the same whoever finds the boxes, also
for a detector of somebody else that knows none of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from trackmill.models.detectors.base import Detector, detect_each
from trackmill.schemas.boxes import nms
from trackmill.schemas.config import Settings
from trackmill.schemas.detections import Detections
from trackmill.schemas.errors import InputError
from trackmill.schemas.names import nearest


class DetectorOptions(Settings):
    """Options of every detector. Left out (None), each is what the detector's authors chose.

    They are applied in this order: score, classes, NMS, most boxes.
    """

    min_score: float | None = Field(None, description="Detections below it are left out.")
    classes: tuple[str, ...] | None = Field(
        None,
        description="Names of the classes to find, as a list or with commas between: of an open-vocabulary detector "
        "its vocabulary, of others those that are kept.",
    )
    nms_iou: float | None = Field(
        None, ge=0, le=1, description="Of two boxes whose IoU is greater, the better-scored one stays."
    )
    class_agnostic_nms: bool | None = Field(
        None, description="Whether NMS removes boxes of other classes too; false: each class for itself."
    )
    max_boxes: int | None = Field(None, ge=1, description="Most detections of an image; the best stay.")

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        """None is the detector's own default, also where that is a number."""
        if not isinstance(values, dict):
            return values
        return {key: value for key, value in values.items() if value is not None or key not in OPTIONS}

    @field_validator("classes", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        # MOTChallenge's classes are numbers, and a number is what a shell makes of classes=5.
        return class_names(str(value) if type(value) is int else value) if value is not None else None


OPTIONS = tuple(DetectorOptions.model_fields)
"""Names of the options that every detector has."""


def class_names(classes: Any) -> tuple[str, ...]:
    """Names of classes out of a list, or of a text with commas between them; blanks around them do not count.

    Raises:
        ValueError: no name, an empty one, the same one twice, or something else than names.
    """
    if not isinstance(classes, str | list | tuple):
        raise ValueError(f"should be names of classes, found {str(classes)[:40]}")
    given = (
        classes.split(",")
        if isinstance(classes, str)
        else [str(each) if type(each) is int else each for each in classes]
    )
    if not all(isinstance(name, str) for name in given):
        wrong = next(name for name in given if not isinstance(name, str))
        raise ValueError(f"should be names of classes, found {str(wrong)[:40]}")
    names = tuple(name.strip() for name in given)
    if not names or not all(names):
        raise ValueError("should be names of classes, found an empty one")
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise ValueError(f"the class {twice!r} is named twice")
    return names


def apply_options(
    found: Detections, options: DetectorOptions, kept_labels: NDArray[np.bool_] | None = None
) -> Detections:
    """What the options leave of an image's detections; masks go along.

    Args:
        found: of one image.
        options: those that are None do nothing; `classes` is not looked at.
        kept_labels: (K,) whether each label is one of the classes that are asked for; None: all are.

    Returns:
        A part of `found`, in its order. Where scores are equal, the earlier one counts as the better.
    """
    keep = np.ones(len(found), bool)
    if options.min_score is not None:
        # As 32 bits on both sides: a detection that scores 0.3 has at least a score of 0.3.
        keep &= found.scores >= np.float32(options.min_score)
    if kept_labels is not None:
        keep &= kept_labels[found.labels]
    rows = np.flatnonzero(keep)
    if options.nms_iou is None:
        best = rows[np.argsort(-found.scores[rows], kind="stable")]
    else:
        groups = None if options.class_agnostic_nms else found.labels[rows]
        best = rows[nms(found.boxes[rows], found.scores[rows], options.nms_iou, groups)]
    best = best[: options.max_boxes]
    return found if len(best) == len(found) else found.select(np.sort(best))


class DetectorWithOptions(Detector):
    """A detector, and the options that it does not keep itself.

    Args:
        detector: whose detections.
        options: what is asked of them.
        name: of the detector, for errors.

    Raises:
        InputError: a class that the detector does not know; names the nearest.
    """

    def __init__(self, detector: Detector, options: DetectorOptions, name: str = "the detector") -> None:
        self.detector, self._options = detector, options
        self.names, self.category_ids = detector.names, detector.category_ids
        self._kept_labels = None if options.classes is None else known_classes(options.classes, detector.names, name)

    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        """See `Detector.detect`."""
        found = detect_each(self.detector, images, frames)
        return [apply_options(each, self._options, self._kept_labels) for each in found]


def with_options(
    detector: Detector, values: Mapping[str, Any], applies: frozenset[str] = frozenset(), name: str = "the detector"
) -> Detector:
    """The detector behind whatever options are asked for and not its own business; itself where there are none.

    Args:
        detector: any.
        values: options by name, see `DetectorOptions`; others are not looked at.
        applies: options that the detector keeps itself.
        name: of the detector, for errors.

    Raises:
        InputError: a class that the detector does not know; names the nearest.
    """
    left = {key: values[key] for key in OPTIONS if key not in applies and values.get(key) is not None}
    # Without a limit of its own, whether classes are looked at together says nothing.
    if set(left) <= {"class_agnostic_nms"}:
        return detector
    return DetectorWithOptions(detector, DetectorOptions(**left), name)


def known_classes(classes: Sequence[str], names: Sequence[str], name: str) -> NDArray[np.bool_]:
    """(K,) which of a detector's K names are asked for; a name that differs in capitals alone is the same.

    Raises:
        InputError: a class is none of them; names the nearest.
    """
    lowered = [each.lower() for each in names]
    kept = np.zeros(len(names), bool)
    for wanted in classes:
        places = [place for place, each in enumerate(names) if each == wanted]
        places = places or [place for place, each in enumerate(lowered) if each == wanted.lower()]
        if not places:
            few = f"it knows {', '.join(names)}" if len(names) <= 12 else f"it knows {len(names)} classes"
            raise InputError(f"classes: {name} has no class {wanted!r}; {nearest(wanted.lower(), lowered) or few}")
        kept[places] = True
    return kept
