"""Views: a coloured object is where its box says after every transform, alone and together, for many draws."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("albumentations")

from trackmill.pipeline.loader.views import View, ViewSettings, pixels
from trackmill.pipeline.loader.views.colour import random_colour
from trackmill.pipeline.loader.views.geometry import (
    cropped,
    mirrored,
    padded,
    random_affine,
    random_crop,
    random_flip,
    random_resize,
    scaled,
)
from trackmill.pipeline.loader.views.mixing import mix_up, occlude
from trackmill.pipeline.loader.views.pair import jitter_boxes, make_pair, select
from trackmill.pipeline.tasks.masa.batch import join_examples
from trackmill.pipeline.tasks.masa.examples import Example
from trackmill.schemas.boxes import clip_boxes
from trackmill.schemas.config import ConfigError, build

SEEDS = range(30)
COLOURS = {1: 0, 2: 1, 3: 2}
"""Channel that is bright in the object of each id: red and green in the picture, blue in its partner."""

STILL = {
    "rotate": 0.0, "translate": 0.0, "scale": (1.0, 1.0), "shear": 0.0, "mixup": 0.0, "hue": 0, "saturation": 0,
    "value": 0, "resize": (1.0, 1.0), "flip": 0.0,
}  # fmt: skip
"""Nothing moves but for what a test adds."""


def _settings(**changes: object) -> ViewSettings:
    return ViewSettings.model_validate({"size": 256} | STILL | changes)


def _released(**changes: object) -> ViewSettings:
    return ViewSettings.model_validate({"size": 256} | changes)


def _drawn(height: int, width: int, boxes: dict[int, tuple[int, int, int, int]]) -> View:
    image = np.zeros((height, width, 3), np.uint8)
    for name, (x0, y0, x1, y1) in boxes.items():
        image[y0:y1, x0:x1, COLOURS[name]] = 255
    return View(
        image=image, boxes=np.array(list(boxes.values()), np.float32).reshape(-1, 4), ids=np.array([*boxes], np.int64)
    )


def _picture() -> View:
    return _drawn(200, 300, {1: (20, 30, 90, 120), 2: (150, 60, 270, 110)})


def _partner(name: int = 3) -> View:
    view = _drawn(180, 140, {3: (30, 40, 110, 130)})
    return replace(view, ids=np.array([name], np.int64))


def _pixels_of(image: np.ndarray, name: int) -> np.ndarray:
    """(H, W) bool: where the colour of an object is, alone or blended with another one's."""
    bright = image[..., COLOURS[name]].astype(int) - image.min(axis=2)
    return bright > max(50, bright.max() / 2)


def _extent(image: np.ndarray, name: int) -> np.ndarray | None:
    rows, columns = np.nonzero(_pixels_of(image, name))
    if not len(rows):
        return None
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], float)


def _assert_found(view: View, tolerance: float, tight: bool = True) -> None:
    """Each object's pixels fill its box, as far as that is in view (or lie in it, where not `tight`)."""
    assert view.boxes.dtype == np.float32 and view.ids.dtype == np.int64 and view.image.dtype == np.uint8
    assert view.boxes.shape == (len(view.ids), 4)
    assert len(set(view.ids.tolist())) == len(view.ids)
    for name, box in zip(view.ids.tolist(), clip_boxes(view.boxes, *view.image.shape[:2])):
        found = _extent(view.image, name)
        if found is None:
            # Smaller than the distance of the pixels that are sampled.
            assert (box[2:] - box[:2]).min() < 2 * tolerance, (name, box)
            continue
        if tight:
            np.testing.assert_allclose(found, box, atol=tolerance, err_msg=f"object {name}")
        else:
            assert (found[:2] >= box[:2] - tolerance).all() and (found[2:] <= box[2:] + tolerance).all(), (name, box)
    for name in set(COLOURS) - set(view.ids.tolist()):
        found = _extent(view.image, name)
        assert found is None or (found[2:] - found[:2]).min() <= 2 * tolerance, f"object {name} is in view, unnamed"


Step = Callable[[View, np.random.Generator], View]

STEPS: dict[str, tuple[Step, float]] = {
    "shift": (lambda view, rng: random_affine(view, rng, _settings(translate=0.3)), 1.0),
    "scale": (lambda view, rng: random_affine(view, rng, _settings(scale=(0.3, 2.5))), 1.5),
    "scale about the centre": (
        lambda view, rng: random_affine(view, rng, _settings(scale=(0.3, 2.5), about_centre=True)), 1.5
    ),
    "resize": (lambda view, rng: random_resize(view, rng, _settings(resize=(0.1, 2.0))), 1.5),
    "crop": (lambda view, rng: random_crop(view, rng, _settings(size=100)), 0.5),
    "flip": (lambda view, rng: random_flip(view, rng, _settings(flip=0.5)), 0.0),
    "pad": (lambda view, rng: padded(view, 300, 400, 114), 0.0),
    "colour": (lambda view, rng: random_colour(view, rng, _released(contrast=0.2, blur=1.0)), 1.0),
    "MixUp": (lambda view, rng: mix_up(view, _partner(), rng, _settings()), 1.5),
    "jitter": (lambda view, rng: jitter_boxes(view, rng, 0.1), 13.0),
    "select": (lambda view, rng: select(view, _settings(clip=True)), 0.0),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_an_object_is_where_its_box_says(name: str) -> None:
    step, tolerance = STEPS[name]
    for seed in SEEDS:
        if name == "MixUp" or len(_picture().ids):
            _assert_found(step(_picture(), np.random.default_rng(seed)), tolerance)


def test_a_turned_and_slanted_object_is_in_the_smallest_box_around_it() -> None:
    settings = _settings(rotate=10, shear=5, about_centre=True)
    # In the middle, so that nothing leaves the frame.
    picture = _drawn(300, 300, {1: (100, 90, 160, 190), 2: (180, 120, 220, 150)})
    for seed in SEEDS:
        view = random_affine(picture, np.random.default_rng(seed), settings)
        assert len(view.ids) == 2
        # A corner's last pixel is covered by less than a half.
        _assert_found(view, 2.5)


def test_objects_that_turn_out_of_the_frame_stay_within_their_boxes() -> None:
    for seed in SEEDS:
        view = random_affine(_picture(), np.random.default_rng(seed), _released())
        _assert_found(view, 1.5, tight=False)
        assert (view.boxes == clip_boxes(view.boxes, 200, 300)).all(), "cut at the frame"


@pytest.mark.parametrize("factor", [0.5, 2.0, 3.0])
def test_pixels_and_boxes_have_the_same_origin(factor: float) -> None:
    """Half a pixel is all that mistaking corners for centres costs, so it is measured to a tenth of one."""
    picture = _drawn(160, 160, {1: (12, 16, 40, 36)})
    matrix = np.diag([factor, factor, 1])
    warped = pixels.warp(picture.image, matrix, 0)
    resized = scaled(picture, int(160 * factor), int(160 * factor))
    for image in (warped, resized.image):
        weight = image[..., 0].astype(float)
        x = (weight.sum(axis=0) * (np.arange(image.shape[1]) + 0.5)).sum() / weight.sum()
        y = (weight.sum(axis=1) * (np.arange(image.shape[0]) + 0.5)).sum() / weight.sum()
        assert (x, y) == pytest.approx((26 * factor, 26 * factor), abs=0.1)
    np.testing.assert_allclose(resized.boxes[0], np.array([12, 16, 40, 36]) * factor)


def test_mixing_blends_both_and_keeps_the_first_pictures_size() -> None:
    for seed in SEEDS:
        view = mix_up(_picture(), _partner(), np.random.default_rng(seed), _released())
        assert view.image.shape == (200, 300, 3)
        assert {1, 2} <= set(view.ids.tolist()) <= {1, 2, 3}
        assert view.image.max() <= 127 + 57, "half of either"
        assert view.image[75, 55, 0] >= 127, "the first picture's object has not moved"
    assert (
        mix_up(_picture(), _partner().keep(np.array([False])), np.random.default_rng(0), _released()).image.max() == 255
    )


def test_patches_hide_a_part_and_never_most_of_an_object() -> None:
    settings = _settings(occluders=4)
    grey = View(
        image=np.full((300, 300, 3), 90, np.uint8), boxes=np.zeros((0, 4), np.float32), ids=np.zeros(0, np.int64)
    )
    hidden, dropped = [], 0
    for seed in range(100):
        view = occlude(_picture(), grey, np.random.default_rng(seed), settings)
        dropped += 2 - len(view.ids)
        for name in view.ids.tolist():
            share = 1 - _pixels_of(view.image, name).sum() / _pixels_of(_picture().image, name).sum()
            assert share <= 0.5
            hidden.append(share)
    assert max(hidden) > 0.1 and min(hidden) == 0
    assert dropped < 60
    before = _picture()
    occlude(before, grey, np.random.default_rng(3), settings)
    assert np.array_equal(before.image, _picture().image), "the picture itself is not written to"


def test_a_crop_shows_an_object_where_there_is_one() -> None:
    lonely = _drawn(600, 600, {1: (570, 4, 580, 12)})
    for seed in SEEDS:
        view = random_crop(lonely, np.random.default_rng(seed), _settings(size=64))
        assert view.ids.tolist() == [1] and view.image.shape == (64, 64, 3)
        _assert_found(view, 0.5)
    empty = random_crop(lonely.keep(np.array([False])), np.random.default_rng(0), _settings(size=64))
    assert empty.image.shape == (64, 64, 3) and not len(empty.ids)


def _pair(seed: int, settings: ViewSettings, partner: View | None = None) -> tuple[View, View]:
    picture = _picture()
    return make_pair(picture.image, picture.boxes, picture.ids, np.random.default_rng(seed), settings, partner)


@pytest.mark.parametrize("mixup", [0.0, 1.0])
def test_the_whole_chain_without_turning(mixup: float) -> None:
    # Boxes as released may reach into the padding, where no pixels are.
    settings = _released(rotate=0, shear=0, mixup=mixup, clip=True)
    common = 0
    for seed in SEEDS:
        pair = _pair(seed, settings, _partner(1))
        for view in pair:
            assert view.image.shape == (256, 256, 3)
            _assert_found(view, 3.0)
        common += len(np.intersect1d(pair[0].ids, pair[1].ids))
    assert common > len(SEEDS), "most draws show an object in both views"


def test_the_whole_chain_as_released() -> None:
    for seed in SEEDS:
        for view in _pair(seed, _released(), _partner(1)):
            _assert_found(view, 3.0, tight=False)


def test_the_whole_chain_for_small_data() -> None:
    settings = _released(
        occluders=2, mixup=0, rotate=6, shear=0, scale=(1, 1), about_centre=True, resize=(0.7, 1.6), contrast=0.1,
        blur=0.8, box_jitter=0.1, clip=True, min_visible=0.5, min_side=8,
    )  # fmt: skip
    grey = View(image=np.full((90, 90, 3), 90, np.uint8), boxes=np.zeros((0, 4), np.float32), ids=np.zeros(0, np.int64))
    for seed in SEEDS:
        for view in _pair(seed, settings, grey):
            for name, box in zip(view.ids.tolist(), view.boxes):
                assert (box[2:] - box[:2] > 8).all() and (clip_boxes(box[None], 256, 256) == box).all()
                found = _extent(view.image, name)
                assert found is not None
                # An object may be jittered by a tenth a side, hidden by patches, and turned.
                margin = 0.2 * (box[2:] - box[:2]).max() + 2
                assert (found[:2] >= box[:2] - margin).all() and (found[2:] <= box[2:] + margin).all()


def test_views_follow_from_the_generator_and_differ_from_each_other() -> None:
    settings = _released(occluders=2, blur=1, contrast=0.1, box_jitter=0.05)
    for seed in range(5):
        first, again, other = (_pair(each, settings, _partner(1)) for each in (seed, seed, seed + 1))
        for one, two in zip(first, again):
            assert np.array_equal(one.image, two.image)
            assert np.array_equal(one.boxes, two.boxes) and np.array_equal(one.ids, two.ids)
        assert not np.array_equal(first[0].image, first[1].image)
        assert not np.array_equal(first[0].image, other[0].image)


def test_the_partner_is_the_same_in_both_views_and_has_ids_of_its_own() -> None:
    settings = _settings(size=400, mixup=1.0, mixup_scale=(1.0, 1.0))
    for view in _pair(0, settings, _partner(1)):
        assert view.ids.tolist() == [1, 2, 3]
    nameless = replace(_partner(), ids=np.zeros(1, np.int64))
    assert _pair(0, settings, nameless)[0].ids.tolist() == [1, 2, 0], "what matches nothing still matches nothing"
    half = _released(mixup=0.5)
    mixed = [[(_pixels_of(view.image, 3)).any() for view in _pair(seed, half, _partner(1))] for seed in range(40)]
    assert 5 < sum(any(each) for each in mixed) < 35


def test_pictures_of_any_shape_become_views() -> None:
    for height, width in ((1, 1), (7, 900), (900, 7), (33, 20)):
        image = np.full((height, width, 3), 200, np.uint8)
        box = np.array([[0, 0, width, height]], np.float32)
        for seed in range(5):
            for view in make_pair(image, box, np.array([1]), np.random.default_rng(seed), _released(), _partner(1)):
                assert view.image.shape == (256, 256, 3) and np.isfinite(view.boxes).all()


def test_a_picture_without_objects_becomes_views_without_objects() -> None:
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    for view in make_pair(_picture().image, *nothing, np.random.default_rng(0), _released(occluders=2), None):
        assert view.boxes.shape == (0, 4) and view.ids.shape == (0,)


def test_defaults_are_the_released_ones() -> None:
    released = ViewSettings()
    assert (released.size, released.rotate, released.translate, released.scale) == (1024, 10, 0.1, (0.5, 1.5))
    assert (released.shear, released.mixup, released.mixup_scale) == (2, 1, (0.8, 1.6))
    assert (released.hue, released.saturation, released.value) == (5, 30, 30)
    assert (released.resize, released.flip, released.border, released.min_side) == ((0.1, 2.0), 0.5, 114, 1)
    assert (released.occluders, released.box_jitter, released.contrast, released.blur) == (0, 0, 0, 0)
    assert not released.clip and not released.about_centre


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rotat": 3}, "did you mean 'rotate'"),  # codespell:ignore
        ({"scale": [1.5, 0.5]}, "the first should be the smaller"),
        ({"flip": 2}, "flip: .*less than or equal to 1"),
        ({"resize": [0, 1]}, "resize.*greater than 0"),
    ],
)
def test_wrong_settings_are_told(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(ViewSettings, values, "views")


def test_cropping_and_mirroring_by_hand() -> None:
    view = cropped(_picture(), 50, 40, 60, 80)
    assert view.boxes.tolist() == [[-30, -10, 40, 80]] and view.ids.tolist() == [1]
    assert mirrored(view).boxes.tolist() == [[40, -10, 110, 80]]


def test_settings_are_read_without_albumentations() -> None:
    """Recipes are checked on machines that only start a run."""
    code = "import sys, trackmill.pipeline.loader.views; sys.exit('albumentations' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == 0


def test_fast_pixels_are_the_same_bytes() -> None:
    """Blending, mirroring and joining have plain forms, which they are held to."""
    first, second = (each.astype(np.uint8) for each in np.meshgrid(np.arange(256), np.arange(256)))
    plain = (first.astype(np.uint16) + second) // 2
    assert np.array_equal(pixels.blend(first, second), plain)
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (7, 5), (64, 96)):
        whole = rng.integers(0, 256, (height + 2, width + 3, 3), np.uint8)
        views = []
        for image in (whole[:height, :width].copy(), whole[2:, 3:], whole[1 : height + 1, :width]):
            assert np.array_equal(pixels.mirror(image), image[:, ::-1])
            views.append(View(image=image, boxes=np.zeros((0, 4), np.float32), ids=np.zeros(0, np.int64)))
        examples = [Example(key=view, reference=view, origins=("a", "b")) for view in views]
        joined = join_examples(examples).key.images
        assert np.array_equal(joined.numpy(), np.stack([view.image for view in views]).transpose(0, 3, 1, 2))
