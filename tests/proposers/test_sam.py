"""SAM: the reference's masks, our boxes, honest counts, and checkpoints that do not fit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("segment_anything")

from tests.parity.synthetic import painting_sam  # noqa: E402
from tests.proposers.scenes import drawing_sam, noise, sam_proposer, scene, tiny_sam  # noqa: E402
from trackmill.models.proposers import SamProposer, SamSettings  # noqa: E402
from trackmill.models.sam.generator import fits_input  # noqa: E402
from trackmill.pipeline.mining.proposer import build_proposer, resolve_proposer  # noqa: E402
from trackmill.schemas.errors import InputError  # noqa: E402
from trackmill.schemas.masks import mask_box, paste_mask  # noqa: E402


@pytest.mark.parametrize(
    ("settings", "kept", "refused"),
    [
        # 16 points x 3 masks: the third has a low IoU, the second is the first with a speck that is mended away.
        ({}, 16, {"low_iou": 16, "duplicate": 4, "duplicate_after_cleaning": 12}),
        # Specks stay: now they make other boxes, except where they fall outside the frame.
        ({"min_mask_region_area": 0}, 28, {"low_iou": 16, "duplicate": 4}),
        # The third passes the IoU and falls at the next gate.
        ({"pred_iou_thresh": 0.4, "min_mask_region_area": 0}, 28, {"low_stability": 16, "duplicate": 4}),
        ({"pred_iou_thresh": 1.0}, 16, {"low_iou": 32}),
        ({"stability_score_thresh": 1.0}, 0, {"low_iou": 16, "low_stability": 32}),
    ],
)
def test_every_candidate_is_counted_once(settings: dict[str, Any], kept: int, refused: dict[str, int]) -> None:
    (found,) = sam_proposer(**settings).propose([scene()])
    assert len(found.boxes) == kept
    assert found.refused == refused
    assert sum(found.refused.values()) + kept == 16 * 3


def test_crops_are_counted_too() -> None:
    (found,) = sam_proposer(crop_n_layers=1).propose([scene()])
    assert sum(found.refused.values()) + len(found.boxes) == (1 + 4) * 16 * 3
    assert found.refused["low_stability_or_cut"] > 0

    nothing = sam_proposer(crop_n_layers=1, stability_score_thresh=1.0, pred_iou_thresh=1.0).propose([scene()])[0]
    assert len(nothing.boxes) == 0  # the reference itself fails where no crop holds a mask


def test_masks_are_those_of_the_reference() -> None:
    from segment_anything import SamAutomaticMaskGenerator

    frame = scene()
    reference = SamAutomaticMaskGenerator(
        drawing_sam(), points_per_side=4, points_per_batch=8, stability_score_thresh=0.7, min_mask_region_area=100
    ).generate(frame.image)
    (found,) = sam_proposer().propose([frame])

    def as_bytes(masks: list[Any]) -> list[bytes]:
        return sorted(mask.tobytes() for mask in masks)

    height, width = frame.image.shape[:2]
    ours = [paste_mask(mask, height, width) for mask in found.masks if mask is not None]
    assert as_bytes(ours) == as_bytes([record["segmentation"] for record in reference])
    # The reference's width counts from the first to the last pixel inside, ours to the edge after it.
    theirs = sorted([x, y, x + w + 1, y + h + 1] for x, y, w, h in (record["bbox"] for record in reference))
    assert sorted(found.boxes.tolist()) == theirs


def test_scores_above_one_are_cut() -> None:
    (found,) = sam_proposer(min_mask_region_area=0).propose([scene()])
    assert set(np.round(found.scores, 3).tolist()) == {1.0, np.float32(0.9).round(3).item()}


def test_duplicates_are_shown_where_they_lie() -> None:
    (found,) = sam_proposer().propose([scene()])
    assert set(found.refused_reasons) == {"duplicate", "duplicate_after_cleaning"}
    # Each is a disc with or without a speck to its right, so it starts where a kept disc starts.
    starts = {tuple(box) for box in found.boxes[:, :2].tolist()}
    assert {tuple(box) for box in found.refused_boxes[:, :2].tolist()} <= starts


def test_random_weights_run_through_every_stage() -> None:
    settings = SamSettings(points_per_side=3, pred_iou_thresh=0, stability_score_thresh=0)
    (found,) = SamProposer.from_model(tiny_sam(), settings).propose([noise(40, 60)])
    assert sum(found.refused.values()) + len(found.boxes) == 27
    assert all(mask_box(mask) == tuple(box) for mask, box in zip(found.masks, found.boxes) if mask is not None)


def test_boxes_in_place_of_the_grid() -> None:
    frame = scene()
    height, width = frame.image.shape[:2]
    prompts = np.array([[10, 10, 30, 40], [50, 20, 90, 60], [0, 0, width, height]], np.float32)
    proposer = SamProposer.from_model(painting_sam(0), SamSettings(pred_iou_thresh=1.0, stability_score_thresh=1.0))
    (found, none, thin) = proposer.propose([frame, frame, noise(1, 900)], boxes=[prompts, prompts[:0], prompts])
    assert len(found.masks) == 3 and found.refused == {}, "no gate, no duplicate removal"
    assert sorted(found.scores.tolist(), reverse=True) == found.scores.tolist()
    assert all(mask_box(mask) == tuple(box) for mask, box in zip(found.masks, found.boxes) if mask is not None)
    assert len(none.boxes) == len(none.masks) == len(thin.boxes) == 0


def test_out_of_memory_halves_the_batch_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    (expected,) = sam_proposer().propose([scene()])
    proposer = sam_proposer()
    segmenter, tried = proposer._generator.pipelined.segmenter, []
    decode = segmenter.decode

    def scarce(features: Any, *, points: Any, iou_above: Any) -> Any:
        tried.append(len(points))
        if len(points) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(features, points=points, iou_above=iou_above)

    monkeypatch.setattr(segmenter, "decode", scarce)
    with pytest.warns(RuntimeWarning, match="points_per_batch is 4 from now on, or less") as warned:
        (found, again) = proposer.propose([scene(), scene()])
    assert tried == [8, 4] + [2] * 16, "tried once, then never again"
    assert len(warned) == 1
    for each in (found, again):
        assert each.boxes.tolist() == expected.boxes.tolist() and each.refused == expected.refused


def test_out_of_memory_for_several_pictures_halves_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    (expected,) = sam_proposer().propose([scene()])
    proposer = sam_proposer(images_per_batch=5)
    segmenter, tried = proposer._generator.pipelined.segmenter, []
    encode = segmenter.encode

    def scarce(images: Any) -> Any:
        tried.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(images)

    monkeypatch.setattr(segmenter, "encode", scarce)
    with pytest.warns(RuntimeWarning, match="images_per_batch is 3 from now on, or less"):
        found = proposer.propose([scene()] * 5)
    assert tried == [5, 3, 2, 2, 1]
    assert [each.boxes.tolist() for each in found] == [expected.boxes.tolist()] * 5


def test_out_of_memory_for_one_point_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    proposer = sam_proposer(points_per_batch=1)

    def full(*arguments: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(proposer._generator.pipelined.segmenter, "decode", full)
    with pytest.raises(torch.OutOfMemoryError):
        proposer.propose([scene()])


def test_calls_from_several_threads_are_safe() -> None:
    proposer = sam_proposer(crop_n_layers=1)
    frames = [scene(), noise(40, 60), noise(61, 33), scene()]
    expected = [proposer.propose([frame])[0] for frame in frames]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda frame: proposer.propose([frame])[0], frames * 3))
    for ours, theirs in zip(found, expected * 3):
        assert ours.boxes.tolist() == theirs.boxes.tolist() and ours.refused == theirs.refused


def test_sizes_that_the_reference_cannot_take() -> None:
    assert fits_input(1, 128, 64) and not fits_input(1, 129, 64)
    found = sam_proposer().propose([noise(1, 129), scene(), noise(1, 129)])
    assert [bool(len(each.boxes)) for each in found] == [False, True, False]


def test_a_checkpoint_of_another_variant_is_named() -> None:
    state_dict = {"image_encoder.pos_embed": torch.zeros(1, 64, 64, 768)}
    with pytest.raises(
        ValueError, match=r'\(1, 64, 64, 768\), vit_h has \(1, 64, 64, 1280\); set sam.variant = "vit_b"'
    ):
        SamProposer(SamSettings(variant="vit_h"), state_dict)


def test_keys_that_do_not_fit_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import segment_anything

    monkeypatch.setitem(segment_anything.sam_model_registry, "vit_b", lambda checkpoint: tiny_sam())
    state_dict = tiny_sam().state_dict()
    state_dict["image_encoder.pos_embed"] = state_dict["image_encoder.pos_embed"].repeat(1, 1, 1, 24)  # 768 wide
    del state_dict["mask_decoder.iou_token.weight"]
    state_dict["teacher.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match="fit SAM vit_b") as raised:
        SamProposer(SamSettings(variant="vit_b"), state_dict)
    text = str(raised.value)
    assert "1 missing: mask_decoder.iou_token.weight" in text
    assert "1 unexpected: teacher.weight" in text
    assert "image_encoder.pos_embed (1, 4, 4, 768) instead of (1, 4, 4, 32)" in text


def test_without_weights_it_says_what_to_set() -> None:
    with pytest.raises(InputError, match=r"set sam.weights"):
        resolve_proposer("sam", SamSettings())


@pytest.mark.slow
def test_a_whole_vit_b_from_its_file(tmp_path: Path) -> None:
    from segment_anything import sam_model_registry

    torch.manual_seed(0)
    path = tmp_path / "mine.pth"
    torch.save(sam_model_registry["vit_b"](checkpoint=None).state_dict(), path)
    settings, implementation = resolve_proposer(
        "sam",
        SamSettings(weights=str(path), variant="vit_b", points_per_side=2, pred_iou_thresh=0, stability_score_thresh=0),
    )
    assert implementation["weights"] == "mine.pth" and len(implementation["weights_sha256"]) == 64
    assert {"torch", "torchvision", "segment-anything"} <= set(implementation)
    assert isinstance(settings, SamSettings) and settings.weights_sha256 == implementation["weights_sha256"]
    (found,) = build_proposer("sam", settings).propose([scene()])
    assert sum(found.refused.values()) + len(found.boxes) == 12
