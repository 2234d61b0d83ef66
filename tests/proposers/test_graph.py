"""Graph segmentation: it finds what is plainly there, refuses by shape, and is decided once for all machines."""

from __future__ import annotations

import builtins
import importlib.util
from typing import Any

import numpy as np
import pytest

from tests.proposers.scenes import disc_mask, plain, scene
from trackmill.models.proposers import GraphProposer, GraphSettings
from trackmill.models.proposers.refusals import count_refusals, show_refusals
from trackmill.models.proposers.regions import find_regions, gate
from trackmill.pipeline.mining.proposer import build_proposer, resolve_proposer
from trackmill.schemas.boxes import Boxes, iou_matrix
from trackmill.schemas.config import ConfigError, build
from trackmill.schemas.errors import MissingPackage
from trackmill.schemas.masks import paste_mask
from trackmill.schemas.media import Frame

BACKENDS = [
    "skimage",
    pytest.param(
        "opencv", marks=pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="opencv is not installed")
    ),
]


def best_mask_iou(found: Any, mask: Any) -> float:
    """IoU of the proposal's mask that is nearest to `mask` (H, W)."""
    pasted = [paste_mask(each, *mask.shape) for each in found.masks]
    return max((float((each & mask).sum() / (each | mask).sum()) for each in pasted), default=0.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_disc_and_a_rectangle_are_found(backend: Any) -> None:
    frame = scene()
    (found,) = GraphProposer(GraphSettings(backend=backend)).propose([frame])
    rectangle = np.array([[180, 110, 260, 170]], np.float32)
    assert best_mask_iou(found, disc_mask()) > 0.9
    assert iou_matrix(rectangle, found.boxes).max() > 0.9


@pytest.mark.parametrize("backend", BACKENDS)
def test_masks_return_to_the_size_of_a_large_frame(backend: Any) -> None:
    frame = scene()
    large = Frame(image=frame.image.repeat(5, axis=0).repeat(5, axis=1))  # 1000 x 1500, worked on at 341 x 512
    (found,) = GraphProposer(GraphSettings(backend=backend)).propose([large])
    assert best_mask_iou(found, disc_mask().repeat(5, axis=0).repeat(5, axis=1)) > 0.9


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_plain_image_has_one_region_and_it_is_refused(backend: Any) -> None:
    (found,) = GraphProposer(GraphSettings(backend=backend, scales=(300.0,))).propose([plain(50, 80)])
    assert len(found.boxes) == 0
    assert found.refused == {"too_large": 1}
    assert found.refused_boxes.tolist() == [[0, 0, 80, 50]] and found.refused_reasons == ["too_large"]


def test_the_same_region_at_two_scales_is_kept_once() -> None:
    one = GraphProposer(GraphSettings(backend="skimage", scales=(300.0,))).propose([scene()])[0]
    two = GraphProposer(GraphSettings(backend="skimage", scales=(300.0, 300.0))).propose([scene()])[0]
    assert two.boxes.tolist() == one.boxes.tolist()
    assert two.refused["duplicate"] == one.refused.get("duplicate", 0) * 2 + len(one.boxes)


def test_regions_are_measured() -> None:
    labels = np.array([[0, 0, 2, 2], [0, 3, 3, 2]])  # number 1 is not used
    regions = find_regions(labels)
    assert regions.labels.tolist() == [0, 2, 3]
    assert regions.areas.tolist() == [3, 3, 2]
    assert regions.boxes.tolist() == [[0, 0, 2, 2], [2, 0, 4, 2], [1, 1, 3, 2]]
    assert regions.extents.tolist() == [0.75, 0.75, 1.0]


LIMITS = GraphSettings(min_area=0.01, max_area=0.5, min_extent=0.35, max_aspect=4)


@pytest.mark.parametrize(
    ("drawn", "reason"),
    [
        ({(5, 15, 5, 15)}, ""),  # a square of 10 x 10 in 40 x 50
        ({(5, 9, 5, 10)}, ""),  # exactly the smallest share
        ({(5, 9, 5, 9)}, "too_small"),
        ({(0, 20, 0, 50)}, ""),  # exactly the largest share
        ({(0, 21, 0, 50)}, "too_large"),
        ({(0, 30, 0, 3), (27, 30, 0, 30)}, "low_extent"),  # a thin L
        ({(5, 11, 5, 29)}, ""),  # 24 x 6: exactly the largest aspect
        ({(5, 11, 5, 30)}, "elongated"),
        ({(5, 30, 5, 11)}, "elongated"),  # upright
        ({(0, 40, 0, 8), (0, 10, 0, 50)}, "spans_image"),  # fills 36 % of the whole image's box
    ],
)
def test_every_gate_refuses_at_its_limit(drawn: set[tuple[int, int, int, int]], reason: str) -> None:
    labels = np.zeros((40, 50), int)
    for y0, y1, x0, x1 in drawn:
        labels[y0:y1, x0:x1] = 1
    assert gate(find_regions(labels), 40, 50, LIMITS)[1] == reason


def test_refusals_are_all_counted_and_shown_in_turn() -> None:
    sides = np.arange(1, 101)
    boxes: Boxes = np.stack([sides * 0, sides * 0, sides, sides], axis=1).astype(np.float32)
    reasons = ["specks"] * 98 + ["rare", ""]
    assert count_refusals(reasons, ("rare", "specks", "absent")) == {"rare": 1, "specks": 98}
    shown, names = show_refusals(boxes, reasons, ("rare", "specks", "absent"))
    assert names == ["rare"] + ["specks"] * 31
    assert shown[:3, 2].tolist() == [99, 98, 97]  # the largest first, the one that passed never


def hide_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `import cv2` fail as on a machine without it."""
    original = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "cv2":
            raise ImportError("No module named 'cv2'")
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)


def test_auto_is_decided_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cv2")
    settings, implementation = resolve_proposer("graph", GraphSettings())
    assert settings == GraphSettings(backend="opencv")
    assert implementation["backend"] == "opencv" and implementation["opencv"]

    hide_opencv(monkeypatch)
    # A worker without OpenCV must not quietly use another backend than the driver decided on.
    with pytest.raises(MissingPackage, match=r'pip install -e "\.\[opencv\]"'):
        build_proposer("graph", settings)


def test_without_opencv_auto_is_skimage(monkeypatch: pytest.MonkeyPatch) -> None:
    hide_opencv(monkeypatch)
    settings, implementation = resolve_proposer("graph", GraphSettings())
    assert settings == GraphSettings(backend="skimage")
    assert set(implementation) == {"backend", "scikit-image", "pillow"}
    assert isinstance(build_proposer("graph", settings), GraphProposer)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"sclaes": [1]}, "did you mean 'scales'"),
        ({"scales": []}, "scales"),
        ({"scales": [0]}, "greater than 0"),
        ({"min_area": 0.6}, "nothing would be left"),
        ({"backend": "opencl"}, "backend"),
    ],
)
def test_wrong_settings_are_named(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        build(GraphSettings, values, "run.toml")


def test_unknown_proposers_and_foreign_settings_are_named() -> None:
    with pytest.raises(ValueError, match="did you mean 'graph'"):
        resolve_proposer("grahp", GraphSettings())
    with pytest.raises(ValueError, match="annotations takes AnnotationSettings, not GraphSettings"):
        build_proposer("annotations", GraphSettings())
