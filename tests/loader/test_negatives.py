"""What a trainer takes of the pseudo-negatives of a frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.make_dataset import make_dataset
from tests.sidecars.test_loader import sample_of
from trackmill.pipeline.loader.negatives import NegativeUse, negatives_of
from trackmill.pipeline.sidecars.about import NoSidecar
from trackmill.pipeline.sidecars.run import make_sidecar
from trackmill.schemas.boxes import iou_matrix


class Frame:
    """A sample whose one frame has these rows."""

    def __init__(self, rows: list[tuple[list[float], float]]) -> None:
        self._rows = rows

    def sidecar(self, name: str, frame: int) -> dict[str, Any]:
        assert (name, frame) == ("negatives", 0)
        boxes = np.array([box for box, _ in self._rows], np.float32).reshape(-1, 4)
        return {"box": boxes, "score": np.array([score for _, score in self._rows], np.float32)}


A, NEAR_A, B, C = [0.0, 0, 10, 10], [0.0, 0, 10, 8], [50.0, 50, 60, 60], [80.0, 0, 90, 9]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [A, C]),  # NEAR_A overlaps a better one by 0.8, B scores too little
        ({"nms_iou": 0.8}, [A, NEAR_A, C]),  # not by more than that
        ({"min_score": 0.2}, [A, C, B]),
        ({"max_boxes": 1}, [A]),
        ({"min_score": 1.0}, []),
    ],
)
def test_score_nms_and_the_best(settings: dict[str, Any], expected: list[list[float]]) -> None:
    frame: Any = Frame([(B, 0.2), (NEAR_A, 0.6), (A, 0.9), (C, 0.3)])
    found = negatives_of(frame, 0, NegativeUse(sidecar="negatives", **settings))
    assert found.dtype == np.float32 and found.tolist() == expected and found.shape == (len(expected), 4)


def test_from_a_sidecar_of_real_samples(tmp_path: Path) -> None:
    root = make_dataset(str(tmp_path / "set")).root
    make_sidecar(root, "negatives", settings={"detector": "proposals"})
    clip = sample_of(root, "bikes")
    assert negatives_of(clip, 0, NegativeUse()).shape == (0, 4), "not asked for"
    for frame in range(clip.num_frames):
        found, objects = negatives_of(clip, frame, NegativeUse(sidecar="negatives")), clip.objects(frame)
        assert len(found) and objects is not None and iou_matrix(found, objects[0]).max() < 0.5
    with pytest.raises(NoSidecar, match="has no sidecar 'others'"):
        negatives_of(clip, 0, NegativeUse(sidecar="others"))
