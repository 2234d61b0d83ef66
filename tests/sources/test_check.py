"""Media that break the contract of a source end the run and name the source."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.make_dataset import make_media
from trackmill.pipeline.sources.check import BadMedia, check_media
from trackmill.schemas.media import Annotations, Frame, Media


def media(count: int = 1, **changes: Any) -> Media:
    return replace(make_media(3, frames=count), **changes)


def annotated(**changes: Any) -> Media:
    values: dict[str, Any] = {"boxes": np.array([[1, 1, 9, 9]], np.float32), "ids": [1], "scores": [1.0]}
    annotations = Annotations(**{"masks": [None], **values, **changes})
    return media(frames=[Frame(image=np.zeros((20, 30, 3), np.uint8), annotations=annotations)])


def test_what_keeps_to_it_passes() -> None:
    check_media("mine", media())
    check_media("mine", media(4))
    check_media("mine", annotated())
    check_media("mine", annotated(boxes=np.zeros((0, 4), np.float32), ids=[], scores=[], masks=[]))


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "read returned NoneType, should be a Media"),
        (media(kind="picture"), "kind 'picture' with 1 frames"),
        (media(frames=[]), "with 0 frames"),
        (media(kind="image", frames=make_media(3, frames=2).frames), "kind 'image' with 2 frames; an image has one"),
        (media(sha256="abc"), "sha256 is 'abc', should be 64"),
        (media(frames=[Frame(image=np.zeros((9, 9, 3)))]), r"frame 0 is float64 \(9, 9, 3\), should be uint8"),
        (media(frames=[Frame(image=np.zeros((9, 9), np.uint8))]), r"frame 0 is uint8 \(9, 9\)"),
        (media(kind="clip", frames=[Frame(image=np.zeros((9, side, 3), np.uint8)) for side in (9, 8)]), "be alike"),
        (annotated(ids=[]), "1 annotated boxes, but 0 ids"),
        (annotated(boxes=np.array([[0, 0, 999, 9]], np.float32)), "outside of the frame of 20 x 30"),
        (annotated(boxes=np.array([[0, 0, np.nan, 9]], np.float32)), "finite"),
        (annotated(ignore=np.array([[-5, 0, 3, 9]], np.float32)), "ignore hold"),
    ],
)
def test_what_breaks_it_is_named(found: Any, message: str) -> None:
    with pytest.raises(BadMedia, match=f"source mine: .*{message}"):
        check_media("mine", found)
