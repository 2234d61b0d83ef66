"""The options of an evaluation that change its numbers."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import ConfigDict, Field, field_validator

from trackmill.pipeline.evaluation.frame_range import is_frame_range
from trackmill.schemas.config import Settings


class Options(Settings):
    """Options; the report names each one that differs from the benchmark's protocol."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    iou: Literal["box", "mask"] | None = None
    """Compare boxes or masks; None takes the benchmark's own."""
    sequences: tuple[str, ...] | None = None
    """Only these sequences; None takes all of the ground truth."""
    gt_file: str = "gt.txt"
    """MOTChallenge text: the file in each `gt` folder, such as `gt_val_half.txt`."""
    frames: str = ""
    """MOTChallenge text: only the frames FROM:TO, counted from 1, both ends included; `301:` is all from 301 on. A
    number below 1 is a share of each sequence: `0.5:` is its second half. Rows of other frames are left out of ground
    truth and results alike."""
    classes: tuple[str, ...] | None = None
    """MOTChallenge text: score these classes (column 8), by number or name, each for itself and all together. Names are
    MOTChallenge's, or those of `gt/labels.txt` as CVAT exports it. None takes the benchmark's own."""
    preprocess: bool = True
    """The benchmark's official removal of distractors and ignored objects (MOT16, 17, 20)."""
    class_vote: bool | None = None
    """Give each predicted track the class that most of its boxes have, as MASA's evaluation does before TETA. None:
    only where the benchmark's protocol says so."""
    bdd_rule: Literal["published", "corrected"] = "published"
    """BDD100K: `published` turns distractor categories into real ones before HOTA and TETA, as the driver that gave the
    published numbers does; `corrected` ignores them."""
    max_detections: int = Field(default=0, ge=0)
    """TAO: keep this many predictions of each image, the best by score; 0 keeps all (official TETA), 300 is the limit
    of TAO's Track mAP."""
    base_classes: str | None = None
    """Open vocabulary: a file with the base classes' names, one a line, or OVT-B's class list; None takes the split
    from the categories' `frequency`."""
    metrics: tuple[Literal["hota", "clear", "identity", "teta", "trackmap"], ...] | None = None
    """Compute only these families of metrics; None takes the benchmark's own."""

    @field_validator("gt_file")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not re.fullmatch(r"[^/\\]+\.txt", value):
            raise ValueError("should be the name of a file, such as gt_val_half.txt, which lies in each gt folder")
        return value

    @field_validator("frames")
    @classmethod
    def _is_a_range(cls, value: str) -> str:
        if value and not is_frame_range(value):
            raise ValueError("should be FROM:TO, such as 301:600, or 301: for the rest from 301, or 0.5: for a half")
        return value

    @field_validator("classes", mode="before")
    @classmethod
    def _apart(cls, value: object) -> object:
        """`1,3` is two classes, and numbers may be given as numbers."""
        words = [value] if isinstance(value, (str, int)) else value
        if not isinstance(words, (list, tuple)):
            return value
        return tuple(part for word in words for part in map(str.strip, str(word).split(",")) if part)
