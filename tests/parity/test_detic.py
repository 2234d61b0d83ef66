"""Detic against the official code, stage by stage: every array of the reference run, with weights that are drawn again.

Tolerances are those of `tests/fixtures/reference/detic_r50/README.md`. The vectors of LVIS's classes lie beside the
checkout; what needs them is skipped where they are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tests.detic import rebuild
from tests.detic.naive_swin import naive_swin
from tests.fixtures import packed
from tests.shared_data import DATA, NEEDS_DATA, needs_data
from trackmill.models import detic
from trackmill.models.detic import cascade
from trackmill.models.detic.centernet import proposals
from trackmill.models.detic.mask_head import CELLS
from trackmill.models.detic.mask_pasting import paste_masks
from trackmill.models.detic.model import Detic, scale_boxes
from trackmill.models.detic.network import Dense, Found
from trackmill.models.detic.pooling import pool
from trackmill.models.detic.preprocessing import make_batch, resize_image, resized_size
from trackmill.models.detic.settings import DetectionSettings
from trackmill.schemas.detections import Detections
from trackmill.schemas.masks import mask_area

SAMPLES, PROPOSALS_PX, BOXES_PX, SCORES, MASKS = 1e-4, 5e-3, 2e-3, 5e-6, 1e-5
MODES = {
    "eval": {"score_threshold": 0.02},
    "demo": {"score_threshold": 0.3, "one_class_per_proposal": True},
}
needs_lvis = pytest.mark.skipif(not rebuild.LVIS.exists(), reason=f"{NEEDS_DATA} ../shared/reference/detic_r50")
both_inputs = pytest.mark.parametrize("name", ["rand", "truck"])


@pytest.fixture(scope="module")
def reference() -> dict[str, NDArray[Any]]:
    return packed.read_arrays("detic_r50/detic_r50.npz")


@pytest.fixture(scope="module")
def detector() -> Iterator[Detic]:
    # Under the wrapper of official files, and with an entry that is to be ignored whatever its shape.
    fully = {**rebuild.rebuild_state("detic_r50"), "backbone.bottom_up.base.fc.weight": torch.zeros(3, 2)}
    yield detic.load({"model": fully}, rebuild.custom20(), variant="r50")
    rebuild.forget()


@pytest.fixture(scope="module")
def computed(detector: Detic) -> dict[str, Dense]:
    """What is computed for every cell, once for all vocabularies."""
    return {}


def dense_of(detector: Detic, computed: dict[str, Dense], name: str) -> Dense:
    if name not in computed:
        image = rebuild.official_image(name)
        computed[name] = detector.network.dense(make_batch([image], [image.shape[:2]], torch.device("cpu")))
    return computed[name]


def check(found: Tensor, reference: dict[str, Any], key: str, most: int = 200) -> None:
    """A map against its shape, its strided sample, and its mean, deviation and largest value."""
    assert list(found.shape) == reference[f"{key}/shape"].tolist(), key
    flat = found.detach().contiguous().flatten()
    sample = flat[:: max(1, len(flat) // most)][:most]
    np.testing.assert_allclose(sample.numpy(), reference[f"{key}/sample"], rtol=0, atol=SAMPLES, err_msg=key)
    double = flat.double()
    stats = [float(double.mean()), float(double.std(unbiased=False)), float(double.abs().max())]
    np.testing.assert_allclose(stats, reference[f"{key}/stats"], rtol=0, atol=SAMPLES, err_msg=key)


def check_instances(found: Detections | Found, reference: dict[str, Any], key: str) -> None:
    """The same boxes with the same classes and scores; the order is defined up to equal scores only."""
    boxes, scores, labels = (np.asarray(each) for each in (found.boxes, found.scores, found.labels))
    wanted = [reference[f"{key}/{part}"] for part in ("boxes", "scores", "classes")]
    assert len(boxes) == len(wanted[0]), key
    assert (np.diff(scores) <= 0).all(), key
    free = np.ones(len(boxes), bool)
    for box, score, label in zip(*wanted, strict=True):
        apart = np.abs(boxes - box).max(axis=1)
        fits = free & (labels == label) & (apart <= BOXES_PX) & (np.abs(scores - score) <= SCORES)
        assert fits.any(), f"{key}: nothing for class {label} at {box}, score {score}"
        free[np.flatnonzero(fits)[0]] = False


@both_inputs
@torch.no_grad()
def test_maps_and_proposals(name: str, detector: Detic, reference: dict[str, Any], computed: dict[str, Dense]) -> None:
    image = rebuild.official_image(name)
    if name == "rand":
        flat = torch.from_numpy(image).permute(2, 0, 1).flatten()
        np.testing.assert_array_equal(flat[:: len(flat) // 200][:200], reference["rand/input_sample"])
    batch = make_batch([image], [image.shape[:2]], torch.device("cpu"))
    check(batch, reference, f"{name}/net_input")
    maps = detector.network.backbone_maps(batch)
    for number, each in enumerate(maps, start=3):
        check(each, reference, f"{name}/bottom_up/layer{number}")
    computed[name] = dense = detector.network.dense_of_maps(maps)
    for number, (level, logits, distances) in enumerate(zip(*dense, strict=True), start=3):
        check(level, reference, f"{name}/fpn/p{number}")
        check(logits, reference, f"{name}/head/agn_hm_logit{number}")
        check(distances, reference, f"{name}/head/reg{number}")
    ((boxes, scores),) = proposals(dense.logits, dense.distances)
    np.testing.assert_allclose(boxes, reference[f"{name}/proposals/boxes"], rtol=0, atol=PROPOSALS_PX)
    np.testing.assert_allclose(scores, reference[f"{name}/proposals/scores"], rtol=0, atol=SCORES)


@both_inputs
@pytest.mark.parametrize("vocabulary", ["custom20", pytest.param("lvis", marks=needs_lvis)])
@torch.no_grad()
def test_stages_and_instances(
    name: str,
    vocabulary: str,
    detector: Detic,
    reference: dict[str, Any],
    computed: dict[str, Dense],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dense = dense_of(detector, computed, name)
    detector.set_vocabulary(rebuild.custom20() if vocabulary == "custom20" else rebuild.lvis_vectors())
    size = rebuild.official_image(name).shape[:2]
    heads, seen = detector.network.roi_heads, {}

    def recorded_pool(levels: Any, boxes: Any, *more: Any) -> Tensor:
        seen.setdefault("boxes_in", []).append(boxes[0])
        return pool(levels, boxes, *more)

    monkeypatch.setattr(cascade, "pool", recorded_pool)
    handles = []
    for stage in range(3):
        watched = {"fc2": heads.box_head[stage], "logits": heads.classifiers[stage]}
        watched["deltas"] = heads.box_predictor[stage].bbox_pred
        for part, module in watched.items():
            keep = lambda _, given, output, key=(part, stage): seen.update({key: (given[0], output)})  # noqa: E731
            handles.append(module.register_forward_hook(keep))
    try:
        for mode, options in MODES.items():
            (found,) = detector.network.detect_dense(dense, [size], DetectionSettings(**options))
            check_instances(found, reference, f"{name}/{vocabulary}_{mode}")
    finally:
        for handle in handles:
            handle.remove()
    for stage in range(3):
        key = f"{name}/stage{stage}"
        boxes_px = PROPOSALS_PX if stage == 0 else BOXES_PX
        np.testing.assert_allclose(seen["boxes_in"][stage], reference[f"{key}/boxes_in"], rtol=0, atol=boxes_px)
        check(seen["fc2", stage][0], reference, f"{key}/pooled")
        check(seen["fc2", stage][1], reference, f"{key}/fc2")
        np.testing.assert_allclose(seen["deltas", stage][1], reference[f"{key}/deltas"], rtol=0, atol=SAMPLES)
        logits = seen["logits", stage][1]
        if vocabulary == "lvis":
            check(logits, reference, f"{key}/logits", most=500)
        else:
            flat = logits.flatten()
            sample = flat[:: max(1, len(flat) // 500)][:500]
            wanted = reference[f"{name}/custom20_eval/stage{stage}_logits_sample"]
            np.testing.assert_allclose(sample, wanted, rtol=0, atol=SAMPLES)


@pytest.mark.parametrize("name", ["rand", "truck"])
@torch.no_grad()
def test_masks_and_boxes_of_the_original_picture(
    name: str, detector: Detic, reference: dict[str, Any], computed: dict[str, Dense]
) -> None:
    dense, key = dense_of(detector, computed, name), f"{name}/lvis_eval"
    boxes = torch.from_numpy(reference[f"{key}/boxes"])
    check(pool(dense.levels, [boxes], CELLS), reference, f"{name}/mask/pooled")
    (probabilities,) = detector.network.masks(dense, [boxes[:50]])
    np.testing.assert_allclose(probabilities[:5], reference[f"{key}/mask_probs_top5"], rtol=0, atol=MASKS)

    size, to = rebuild.official_image(name).shape[:2], tuple(reference[f"{key}/post_hw"].tolist())
    if name == "truck":
        assert to == tuple(reference["truck/orig_hw"].tolist())
    scaled = scale_boxes(boxes, size, to)
    assert ((scaled[:, 2:] > scaled[:, :2]).all(dim=1)).sum() == reference[f"{key}/post_count"]
    np.testing.assert_allclose(scaled[:50], reference[f"{key}/post_boxes_top50"], rtol=0, atol=2 * BOXES_PX)
    areas = [0 if mask is None else mask_area(mask) for mask in paste_masks(probabilities, scaled[:50], *to)]
    # A pixel whose probability is one half within rounding may fall on either side.
    wanted = reference[f"{key}/post_mask_area_top50"]
    assert (np.abs(np.array(areas) - wanted) <= 2 + 1e-4 * wanted).all()
    assert np.mean(np.array(areas) == wanted) > 0.8


@pytest.mark.parametrize("name", ["rand", "truck"])
def test_detect_gives_the_same_end_to_end(name: str, detector: Detic, reference: dict[str, Any]) -> None:
    detector.set_vocabulary(rebuild.custom20())
    (found,) = detector.detect([rebuild.official_image(name)], **MODES["demo"], resize=None)
    check_instances(found, reference, f"{name}/custom20_demo")
    # The demo's own threshold is 0.5: a part of the same.
    strict = found.select(found.scores > 0.5)
    again = detector.detect([rebuild.official_image(name)], 0.5, None, True)[0]
    assert np.array_equal(strict.boxes, again.boxes)
    assert np.array_equal(strict.labels, again.labels)


def test_resizing_is_the_released_rule() -> None:
    stored = packed.read_arrays("detic_r50/resize.npz")
    for height, width, new_height, new_width in stored["cases"].tolist():
        assert resized_size(height, width, (800, 1333)) == (new_height, new_width)


@needs_data("images/truck.jpg")
def test_a_picture_is_resized_to_the_same_bytes() -> None:
    picture = np.asarray(Image.open(DATA / "images" / "truck.jpg").convert("RGB"))
    resized = resize_image(picture, resized_size(*picture.shape[:2], (800, 1333)))
    stored = packed.read_arrays("detic_r50/resize.npz")["truck_800"]
    np.testing.assert_array_equal(resized.reshape(-1)[::997], stored)


def test_the_recipe_leaves_out_only_what_may_be_absent() -> None:
    for name in ("detic_r50", "detic_swinb"):
        every = {each["name"] for each in rebuild.read_manifest(name)["entries"]}
        left = every - set(rebuild.rebuild_names(name))
        assert {each.split(".")[-1] for each in left} <= {
            "zs_weight",
            "num_batches_tracked",
            "relative_position_index",
            "weight",
            "bias",
        }
        assert all(".fc." in each for each in left if each.endswith((".weight", ".bias")))


@torch.no_grad()
def test_swin_b_loads_and_its_maps_are_those_of_plain_loops() -> None:
    """Its outputs are not stored: the backbone is held to loops over windows, the rest is the same code as above."""
    state = rebuild.rebuild_state("detic_swinb")
    found = detic.load({"model": state}, rebuild.custom20())
    assert found.network.architecture.name == "swinb"
    image = rebuild.official_image("rand")
    batch = make_batch([image], [image.shape[:2]], torch.device("cpu"))
    prefix = "backbone.bottom_up."
    weights = {key.removeprefix(prefix): each for key, each in state.items() if key.startswith(prefix)}
    expected = naive_swin(weights, batch, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32), window=7)
    for one, other in zip(found.network.backbone_maps(batch), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-5)
    (detections,) = found.detect([image], 0.02, None)
    assert len(detections) == 300
    rebuild.forget()


def test_the_picture_in_its_official_size_is_resized_alike() -> None:
    # The original picture is not here; Pillow's filter is, so the small copy stands for it in both directions.
    image = rebuild.official_image("truck")
    for size in ((800, 1200), (320, 480)):
        whole = resize_image(image, size)
        as_float = resize_image(image.astype(np.float32), size)
        assert whole.dtype == np.uint8
        assert np.abs(as_float - whole).max() <= 1.01
