"""`dab-deformable-detr:WEIGHTS` as a detector: whom it finds, where, and in whatever batch an image comes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.ipmot.small_detector import small_detector
from trackmill.models.ipmot.detector import DeformableDetr
from trackmill.models.ipmot.detr_detector import DetrDetector, DetrOptions, coco_names
from trackmill.models.ipmot.overlaps import as_corners
from trackmill.models.ipmot.sizes import DetectorSizes
from trackmill.models.registry import find_detector
from trackmill.schemas.errors import InputError

SMALL = {"short_side": 48, "long_side": 96, "min_score": 0.0}


def images(*sizes: tuple[int, int]) -> list[NDArray[np.uint8]]:
    draw = np.random.default_rng(2)
    return [draw.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


def detector(rows: int = 91, **options: Any) -> DetrDetector:
    return DetrDetector(small_detector(classes=rows), DetrOptions(**{**SMALL, **options}))


def test_people_are_row_one_of_coco_in_pixels_of_the_image() -> None:
    image = images((48, 64))[0]
    found = detector().detect([image])[0]
    network = small_detector(classes=91)
    values = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (network.mean, network.std))
    with torch.no_grad():
        output = network(((values - mean) / std)[None], torch.zeros(1, 48, 64, dtype=torch.bool))
    scores, order = output["pred_logits"][0, :, 1].sigmoid().sort(descending=True)
    boxes = (as_corners(output["pred_boxes"])[0].clamp(0, 1) * torch.tensor([64, 48, 64, 48]))[order]
    assert (found.names, set(found.labels.tolist())) == (("person",), {0}) and len(found) == 10
    np.testing.assert_allclose(found.scores, scores.numpy(), atol=1e-5)
    np.testing.assert_allclose(found.boxes, boxes.numpy(), atol=1e-3)
    larger = detector().detect([image.repeat(2, axis=0).repeat(2, axis=1)])[0]  # 96 x 128, looked at in 48 x 64
    assert larger.boxes[:, 2].max() > 64 and larger.boxes[:, 2].max() <= 128


def test_an_image_is_the_same_in_any_batch() -> None:
    batch = images((48, 64), (60, 40), (48, 64), (96, 128))
    for size in (1, 3):
        together = detector(batch_size=size).detect(batch)
        for image, found in zip(batch, together, strict=True):
            alone = detector(batch_size=size).detect([image])[0]
            np.testing.assert_allclose(found.boxes, alone.boxes, atol=1e-3)
            assert (found.boxes >= 0).all() and (found.boxes[:, 2:] <= [image.shape[1], image.shape[0]]).all()


def test_all_classes_of_coco_or_some() -> None:
    names = coco_names()
    assert len(names) == 80 and names[1] == "person" and names[90] == "toothbrush"
    every = detector(all_classes=True, max_boxes=5000)
    assert every.names == tuple(names.values()) and every.category_ids == tuple(names)
    assert len(every.detect(images((48, 64)))[0]) == 800  # each class of each query, as published
    dogs = detector(classes="dog").detect(images((48, 64)))[0]
    assert {dogs.names[label] for label in dogs.labels} == {"dog"} and len(dogs) == 10
    assert detector().category_ids == (1,)


def test_one_class_is_people() -> None:
    assert (detector(1).names, detector(1).category_ids) == (("person",), (1,))
    named = DetrDetector(small_detector(classes=2), DetrOptions(**SMALL, names=("dog", "Person")))
    assert named.names == ("Person",) and named.category_ids == (2,)
    with pytest.raises(InputError, match="these weights have 5 classes: say what they are called"):
        detector(5)
    with pytest.raises(InputError, match="names: 1 names for the 5 classes"):
        DetrDetector(small_detector(classes=5), DetrOptions(names=("a",)))
    with pytest.raises(InputError, match="none of its classes is called person"):
        DetrDetector(small_detector(classes=2), DetrOptions(names=("a", "b")))
    with pytest.raises(InputError, match="has no class 'dog'"):
        DetrDetector(small_detector(classes=1), DetrOptions(classes="dog"))


def test_half_precision_finds_about_the_same() -> None:
    image = images((48, 64))
    exact, rough = (detector(dtype=dtype, max_boxes=3).detect(image)[0] for dtype in ("float32", "bfloat16"))
    np.testing.assert_allclose(exact.scores, rough.scores, atol=0.1)


def test_the_registry_builds_what_the_weights_are() -> None:
    torch.manual_seed(0)
    sizes = {"hidden": 32, "levels": 2, "encoder_layers": 1, "decoder_layers": 2, "feedforward": 16, "queries": 6}
    state = DeformableDetr(DetectorSizes(classes=91, **sizes)).state_dict()
    assert DetrDetector.recognise(state) == "dab-deformable-detr" and DetrDetector.recognise({}) is None
    choice = find_detector("dab-deformable-detr:weights.pth", SMALL)
    assert choice.weights == "weights.pth" and find_detector("deformable-detr:x.pth").config.form == "plain"
    built = choice.build(state)
    assert built.names == ("person",) and len(built.detect(images((40, 50)))[0]) == 6
    with pytest.raises(InputError, match="weights of dab-deformable-detr, not deformable-detr: write dab-deformable-"):
        find_detector("deformable-detr:weights.pth").build(state)
    with pytest.raises(InputError, match="unknown key 'shortside'; did you mean 'short_side'"):
        find_detector("dab-deformable-detr:x.pth", {"shortside": 3})
