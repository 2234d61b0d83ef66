"""Masks from files: what pycocotools makes of them where they are sound, one clear line where they are not."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from trackmill.pipeline.formats import segmentations
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.formats.segmentations import read_segmentation, read_segmentations
from trackmill.schemas.masks import format_counts, mask_runs

HEIGHT, WIDTH = 24, 36
WHERE = "gt.json: annotations[17].segmentations[3]"


def _mask(seed: int, height: int = HEIGHT, width: int = WIDTH, share: float = 0.4) -> np.ndarray:
    coarse = np.random.default_rng(seed).random((height // 4 + 1, width // 4 + 1)) < share
    return np.kron(coarse, np.ones((4, 4), bool))[:height, :width]


def _compressed(mask: np.ndarray) -> dict[str, Any]:
    return {"size": list(mask.shape), "counts": format_counts(mask_runs(mask))}


def _uncompressed(mask: np.ndarray) -> dict[str, Any]:
    return {"size": list(mask.shape), "counts": mask_runs(mask).tolist()}


@pytest.mark.parametrize("share", [0, 0.05, 0.5, 1])
def test_runs_give_their_pixels(share):
    mask = _mask(1, share=share)
    for value in (_compressed(mask), _uncompressed(mask)):
        rle = read_segmentation(value, HEIGHT, WIDTH, WHERE)
        assert rle["size"] == [HEIGHT, WIDTH] and isinstance(rle["counts"], bytes)
        np.testing.assert_array_equal(coco.decode(rle), mask)


def test_runs_of_pycocotools_are_taken():
    mask = _mask(2)
    official = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert read_segmentation(
        {"size": [HEIGHT, WIDTH], "counts": official["counts"].decode()}, HEIGHT, WIDTH, WHERE
    ) == {
        "size": [HEIGHT, WIDTH],
        "counts": official["counts"],
    }


def test_polygons_are_rasterised_as_pycocotools_does_and_joined():
    polygons = [[2, 3, 14.5, 3, 14.5, 17.25, 2, 17.25], [20, 5, 33, 8.5, 25, 22]]
    official = coco.merge(coco.frPyObjects(polygons, HEIGHT, WIDTH))
    rle = read_segmentation(polygons, HEIGHT, WIDTH, WHERE)
    np.testing.assert_array_equal(coco.decode(rle), coco.decode(official))
    assert coco.area(rle) > 200


def test_polygons_may_leave_the_frame():
    beyond = read_segmentation([[-5, -5, WIDTH + 5, -5, WIDTH + 5, 12, -5, 12]], HEIGHT, WIDTH, WHERE)
    assert coco.area(beyond) == 12 * WIDTH


BROKEN = {
    "number": (17, "list of polygons"),
    "text": ("abc", "list of polygons"),
    "nothing": (None, "list of polygons"),
    "no counts": ({"size": [HEIGHT, WIDTH]}, "'counts'"),
    "no size": ({"counts": "0"}, "'size'"),
    "other size": ({"size": [WIDTH, HEIGHT], "counts": "PX1"}, ".size"),
    "size of text": ({"size": ["24", "36"], "counts": "PX1"}, ".size"),
    "size too short": ({"size": [HEIGHT], "counts": "PX1"}, ".size"),
    "counts of floats": ({"size": [HEIGHT, WIDTH], "counts": [1.5, 2]}, ".counts"),
    "counts of truth values": ({"size": [HEIGHT, WIDTH], "counts": [True, 863]}, ".counts"),
    "counts too few": ({"size": [HEIGHT, WIDTH], "counts": [10, 20]}, "864"),
    "counts negative": ({"size": [HEIGHT, WIDTH], "counts": [-1, 865]}, "negative"),
    "counts huge": ({"size": [HEIGHT, WIDTH], "counts": [1 << 70]}, ".counts"),
    "counts that wrap": ({"size": [HEIGHT, WIDTH], "counts": [1 << 62, 1 << 62, 1 << 62, 1 << 62, 864]}, ".counts"),
    "text outside the alphabet": ({"size": [HEIGHT, WIDTH], "counts": "PX1!"}, "alphabet"),
    "text of another script": ({"size": [HEIGHT, WIDTH], "counts": "PX1\u4e2d"}, ".counts"),
    "text that ends early": ({"size": [HEIGHT, WIDTH], "counts": "PX"}, "middle"),
    "empty text": ({"size": [HEIGHT, WIDTH], "counts": ""}, "0 pixels"),
    "no polygon": ([], "empty list"),
    "flat polygon": ([1, 2, 3, 4, 5, 6], "[0]"),
    "two corners": ([[1, 2, 3, 4]], "3 corners"),
    "odd numbers": ([[1, 2, 3, 4, 5, 6, 7]], "3 corners"),
    "corner of text": ([[1, 2, 3, "4", 5, 6]], "finite"),
    "corner NaN": ([[1, 2, 3, float("nan"), 5, 6]], "finite"),
    "corner infinite": ([[1, 2, 3, float("inf"), 5, 6]], "finite"),
    "corner far away": ([[1, 2, 3, 1e9, 5, 6]], "far outside"),
    "endless outline": ([[0, 0, 35, 23] * 80_000], "outline"),
    "second polygon": ([[1, 1, 9, 1, 9, 9], [1, 2]], "[1]"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_masks_are_named(case):
    value, message = BROKEN[case]
    with pytest.raises(BadTracks) as caught:
        read_segmentation(value, HEIGHT, WIDTH, WHERE)
    text = str(caught.value)
    assert text.startswith(WHERE) and message in text and "\n" not in text and len(text) < 400
    with pytest.raises(BadTracks) as caught:
        read_segmentations([_compressed(_mask(3)), value], [(HEIGHT, WIDTH)] * 2, lambda i: f"{WHERE}({i})")
    assert str(caught.value) == text.replace(WHERE, f"{WHERE}(1)")


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 4), (1 << 16, 1 << 15)])
def test_frames_that_hold_no_mask(size):
    with pytest.raises(BadTracks, match="can hold no mask"):
        read_segmentation({"size": list(size), "counts": "0"}, *size, where=WHERE)
    with pytest.raises(BadTracks, match="can hold no mask"):
        read_segmentations([{"size": list(size), "counts": "0"}], [size], lambda i: WHERE)


def test_many_are_read_like_one_by_one():
    rng = np.random.default_rng(4)
    values, sizes = [], []
    for seed in range(120):
        height, width = (int(side) for side in rng.integers(1, 50, 2))
        mask = _mask(seed, height, width, share=float(rng.choice([0, 0.1, 0.5, 1])))
        values.append([_compressed(mask), _uncompressed(mask), [[0, 0, 0, height, width, height]]][seed % 3])
        sizes.append((height, width))
    many = read_segmentations(values, sizes, str)
    assert many == [read_segmentation(value, *size, where="") for value, size in zip(values, sizes)]


def test_many_are_judged_like_one_by_one(monkeypatch):
    """Text that has been tampered with: the joint check accepts exactly what the single one accepts."""
    monkeypatch.setattr(segmentations, "_CHUNK_BYTES", 400)
    sound = [_compressed(_mask(seed, share=0.3)) for seed in range(20)]
    dice = random.Random(5)
    values = []
    for _ in range(3000):
        text = bytearray(dice.choice(sound)["counts"].encode())
        for _ in range(dice.randrange(3)):
            place = dice.randrange(len(text) + 1)
            if dice.random() < 0.3:
                text[place : place + 1] = b""
            elif dice.random() < 0.5:
                text[place : place + 1] = bytes([dice.randrange(40, 120)])
            else:
                text[place:place] = bytes([dice.randrange(48, 112)] * dice.randrange(1, 9))
        values.append({"size": [HEIGHT, WIDTH], "counts": text.decode()})
    accepted = 0
    for begin in range(0, len(values), 60):
        part = values[begin : begin + 60]
        for value in part:
            try:
                rle = read_segmentation(value, HEIGHT, WIDTH, "")
            except BadTracks:
                with pytest.raises(BadTracks):
                    read_segmentations([sound[0], value, sound[1]], [(HEIGHT, WIDTH)] * 3, str)
            else:
                accepted += 1
                together = read_segmentations([sound[0], value, sound[1]], [(HEIGHT, WIDTH)] * 3, str)
                assert together[1] == rle
    assert 500 < accepted < 2500
    texts = [value["counts"].encode() for value in values]
    joint = segmentations._sound(texts, np.full(len(texts), HEIGHT * WIDTH, object))
    assert int(joint.sum()) == accepted
