"""SAM 2.1 and SAM 3: the same masks as transformers' own calls, whatever else is in the batch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("safetensors")

from torch.nn import functional  # noqa: E402

from trackmill.models.sam import sam2  # noqa: E402
from trackmill.models.sam.loading import load  # noqa: E402
from trackmill.models.sam.sam2 import Sam2Segmenter  # noqa: E402
from trackmill.models.sam.segmenter import Features  # noqa: E402

SIDE = {"sam2": 64, "sam3": 56}


def tiny(family: str = "sam2", seed: int = 0, dynamic: bool = True) -> Any:
    """A model small enough to run in a test, with every table, bias and norm random."""
    decoder = {
        "hidden_size": 32,
        "mlp_dim": 32,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 16,
        "dynamic_multimask_via_stability": dynamic,
    }
    torch.manual_seed(seed)
    if family == "sam2":
        backbone = transformers.Sam2HieraDetConfig(
            hidden_size=8,
            image_size=[64, 64],
            blocks_per_stage=[1, 1, 2, 1],
            embed_dim_per_stage=[8, 16, 32, 64],
            num_attention_heads_per_stage=[1, 2, 2, 4],
            window_size_per_stage=[4, 2, 4, 2],
            window_positional_embedding_background_size=[4, 4],
            global_attention_blocks=[3],
        )
        vision = transformers.Sam2VisionConfig(
            backbone_config=backbone,
            backbone_channel_list=[64, 32, 16, 8],
            backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
            fpn_hidden_size=32,
        )
        prompts = {"hidden_size": 32, "image_size": 64, "patch_size": 16, "mask_input_channels": 4}
        config = transformers.Sam2Config(
            vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder
        )
        model = transformers.Sam2Model(config)
    else:
        backbone = {
            "model_type": "sam3_vit_model",
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 56,
            "window_size": 2,
            "global_attn_indexes": [1],
            "pretrain_image_size": 28,
        }
        vision = {
            "model_type": "sam3_vision_model",
            "backbone_config": backbone,
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        }
        prompts = {"hidden_size": 32, "image_size": 56, "patch_size": 14, "mask_input_channels": 4}
        config = transformers.Sam3TrackerConfig(
            vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder
        )
        model = transformers.Sam3TrackerModel(config)
    with torch.no_grad():
        for values in model.parameters():
            # Wide enough that prompts and pictures matter to the logits.
            values.add_(torch.randn_like(values) * (0.3 if values.ndim < 2 else values[0].numel() ** -0.5))
    return model.eval()


def processor(family: str) -> Any:
    """transformers' own, at the tiny model's size."""
    size = {"height": SIDE[family], "width": SIDE[family]}
    if family == "sam2":
        return transformers.Sam2Processor(transformers.Sam2ImageProcessor(size=size))
    return transformers.Sam3TrackerProcessor(transformers.Sam3ImageProcessor(size=size))


def picture(height: int, width: int) -> Any:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def drawn(logits: Any, features: Features) -> Any:
    """Logits at the picture's size, by the chain of the features."""
    masks = logits[:, None]
    for stage in features.chain.stages:
        masks = functional.interpolate(masks, stage.size, mode="bilinear", align_corners=False)
        masks = masks[..., : stage.keep[0], : stage.keep[1]]
    return masks[:, 0]


POINTS = np.array([[3.5, 2.25], [40.0, 17.0], [11.0, 30.5]])
BOXES = np.array([[2.0, 3.0, 20.5, 17.0], [10.0, 0.0, 45.0, 31.0]])


@pytest.mark.parametrize("family", ["sam2", "sam3"])
@pytest.mark.parametrize(
    ("height", "width"),
    [
        (33, 47),  # smaller than the model's square, wide
        (150, 90),  # larger, tall
        (3, 60),  # three rows look like three channels
    ],
)
def test_masks_are_those_of_transformers(family: str, height: int, width: int) -> None:
    model, processed, image = tiny(family), processor(family), picture(height, width)
    segmenter = Sam2Segmenter(model, prompts_per_batch=2)
    (features,) = segmenter.encode([image])
    assert features.size == features.chain.size == (height, width)
    assert features.input_size == (segmenter.image_size,) * 2 == (SIDE[family],) * 2
    asked: list[tuple[dict[str, Any], dict[str, Any], int]] = [
        ({"points": POINTS}, {"input_points": [[[point] for point in POINTS.tolist()]]}, 3),
        ({"boxes": BOXES}, {"input_boxes": [BOXES.tolist()]}, 1),
    ]
    for ours, theirs, masks_each in asked:
        inputs = processed(images=image, return_tensors="pt", input_data_format="channels_last", **theirs)
        sizes = inputs.pop("original_sizes")
        with torch.inference_mode():
            output = model(**inputs, multimask_output=masks_each == 3)
        expected = processed.post_process_masks(output.pred_masks, sizes, binarize=False)[0].flatten(0, 1)

        found = segmenter.decode(features, **ours)
        assert found.iou.shape == (len(next(iter(ours.values()))), masks_each) and found.iou.dtype == torch.float32
        assert found.logits.shape == (found.iou.numel(), 16, 16) and found.logits.dtype == torch.float32
        assert found.kept.tolist() == list(range(found.iou.numel()))
        scale = float(expected.std())
        assert scale > 0.01 and float(output.iou_scores.std()) > 1e-4
        torch.testing.assert_close(found.iou, output.iou_scores[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(drawn(found.logits, features), expected, rtol=1e-5, atol=2e-5 * scale)


@pytest.mark.parametrize("family", ["sam2", "sam3"])
def test_other_pictures_of_a_batch_change_nothing(family: str) -> None:
    segmenter = Sam2Segmenter(tiny(family))
    images = [picture(33, 47), picture(60, 20), picture(33, 47)[::-1]]
    together = segmenter.encode(images)
    for image, found in zip(images, together):
        (alone,) = segmenter.encode([image])
        assert found.chain == alone.chain and found.size == alone.size
        for ours, theirs in zip(
            (found.embedding, *found.high_resolution), (alone.embedding, *alone.high_resolution), strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(together[0].embedding, together[2].embedding, atol=1e-3)
    assert segmenter.encode([]) == []


def test_only_masks_above_the_iou_are_kept() -> None:
    segmenter = Sam2Segmenter(tiny(), prompts_per_batch=2)
    (features,) = segmenter.encode([picture(33, 47)])
    everything = segmenter.decode(features, points=POINTS)
    level = float(everything.iou.median())  # one of the nine: it is not above itself
    found = segmenter.decode(features, points=POINTS, iou_above=level)
    kept = (everything.iou.flatten() > level).nonzero()[:, 0]
    assert len(kept) == 4 and found.kept.tolist() == kept.tolist()
    torch.testing.assert_close(found.iou, everything.iou)
    torch.testing.assert_close(found.logits, everything.logits[kept])

    nothing = segmenter.decode(features, points=POINTS, iou_above=2.0)
    assert nothing.logits.shape == (0, 16, 16) and nothing.iou.shape == (3, 3) and len(nothing.kept) == 0


def test_prompts_do_not_see_each_other() -> None:
    model = tiny()
    (features,) = Sam2Segmenter(model).encode([picture(33, 47)])
    together = Sam2Segmenter(model, prompts_per_batch=3).decode(features, points=POINTS)
    alone = Sam2Segmenter(model, prompts_per_batch=1).decode(features, points=POINTS)
    torch.testing.assert_close(together.iou, alone.iou, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(together.logits, alone.logits, rtol=1e-4, atol=1e-5)


def test_without_prompts_there_are_no_masks() -> None:
    segmenter = Sam2Segmenter(tiny())
    (features,) = segmenter.encode([picture(20, 20)])
    found = segmenter.decode(features, boxes=np.zeros((0, 4)))
    assert found.iou.shape == (0, 1) and found.logits.shape == (0, 16, 16) and found.kept.dtype == torch.int64
    with pytest.raises(ValueError, match="either points or boxes"):
        segmenter.decode(features)
    with pytest.raises(ValueError, match="either points or boxes"):
        segmenter.decode(features, points=POINTS, boxes=BOXES)


@pytest.mark.parametrize("family", ["sam2", "sam3"])
def test_a_folder_gives_the_same_model(tmp_path: Path, family: str) -> None:
    model = tiny(family)
    model.save_pretrained(tmp_path)
    mean = [0.1, 0.2, 0.3]
    processor(family).image_processor.from_dict(
        {"size": {"height": SIDE[family], "width": SIDE[family]}, "image_mean": mean}
    ).save_pretrained(tmp_path)
    segmenter = Sam2Segmenter.from_files(tmp_path)
    assert list(segmenter.processor.image_mean) == mean and segmenter.device.type == "cpu"
    expected = Sam2Segmenter(model, segmenter.processor)
    (ours,), (theirs,) = segmenter.encode([picture(20, 30)]), expected.encode([picture(20, 30)])
    torch.testing.assert_close(ours.embedding, theirs.embedding)
    torch.testing.assert_close(segmenter.decode(ours, boxes=BOXES).logits, expected.decode(theirs, boxes=BOXES).logits)

    for name in ("preprocessor_config.json", "processor_config.json"):
        (tmp_path / name).unlink(missing_ok=True)
    assert Sam2Segmenter.from_files(tmp_path).processor.image_mean[0] != mean[0]  # the published models' own


def video_config(model: Any) -> Any:
    """The video model's config that the published folders hold; `model` is its part for pictures."""
    parts = {"prompt_encoder_config": model.config.prompt_encoder_config.to_dict()}
    parts["mask_decoder_config"] = model.config.mask_decoder_config.to_dict()
    parts["vision_config"] = model.config.vision_config.to_dict()
    if model.config.model_type == "sam3_tracker":
        tracker = transformers.Sam3TrackerVideoConfig(image_size=SIDE["sam3"], **parts)
        return transformers.Sam3VideoConfig(tracker_config=tracker.to_dict())
    memory = {
        "memory_attention_hidden_size": 32,
        "memory_attention_feed_forward_hidden_size": 32,
        "memory_attention_rope_feat_sizes": [4, 4],
        "memory_encoder_hidden_size": 32,
        "memory_encoder_output_channels": 8,
        "mask_downsampler_embed_dim": 32,
        "memory_fuser_embed_dim": 32,
        "memory_fuser_intermediate_dim": 32,
    }
    return transformers.Sam2VideoConfig(image_size=SIDE["sam2"], **parts, **memory)


@pytest.mark.parametrize("family", ["sam2", "sam3"])
def test_the_published_folders_are_those_of_video_models(tmp_path: Path, family: str) -> None:
    model = tiny(family)
    config = video_config(model)
    if family == "sam2":
        video = transformers.Sam2VideoModel(config)
        assert not video.load_state_dict(model.state_dict(), strict=False).unexpected_keys
        video.save_pretrained(tmp_path)
    else:  # without the detector, whose tensors would not be read
        model.save_pretrained(tmp_path)
        config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == f"{family}_video"

    found, expected = Sam2Segmenter.from_files(tmp_path), Sam2Segmenter(model)
    (ours,), (theirs,) = found.encode([picture(20, 30)]), expected.encode([picture(20, 30)])
    torch.testing.assert_close(found.decode(ours, boxes=BOXES).logits, expected.decode(theirs, boxes=BOXES).logits)


def test_load_knows_the_variants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"is not sam2\.1_hiera_small but a model of another size: .* 8 channels"):
        load("sam2.1_hiera_small", tmp_path)
    with pytest.raises(ValueError, match="holds a model of sam2, not sam3"):
        load("sam3", tmp_path)
    monkeypatch.setitem(sam2._BACKBONES, "sam2.1_hiera_tiny", (8, [1, 1, 2, 1]))
    segmenter = load("sam2.1_hiera_tiny", tmp_path)
    assert isinstance(segmenter, Sam2Segmenter) and not segmenter.model.training
    with pytest.raises(ValueError, match=r"is not sam2\.1_hiera_large but sam2\.1_hiera_tiny"):
        load("sam2.1_hiera_large", str(tmp_path))

    with pytest.raises(ValueError, match="copy the folder here"):
        load("sam2.1_hiera_tiny", "s3://models/sam2?signature=secret")
    with pytest.raises(FileNotFoundError, match="no folder at"):
        load("sam2.1_hiera_tiny", tmp_path / "config.json")
    with pytest.raises(ValueError, match="from a folder"):
        load("sam2.1_hiera_tiny", None)


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    with pytest.raises(FileNotFoundError, match=r"config\.json: give a folder"):
        Sam2Segmenter.from_files(tmp_path)
    tiny().save_pretrained(tmp_path)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"

    tensors = load_file(weights)
    del tensors["mask_decoder.iou_token.weight"]
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(ValueError, match=r"config\.json: 1 missing: mask_decoder\.iou_token\.weight$"):
        Sam2Segmenter.from_files(tmp_path)
    tensors["mask_decoder.iou_token.weight"] = torch.zeros(1, 31)
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(ValueError, match=r"1 of another shape: mask_decoder\.iou_token\.weight \(1, 31\) instead"):
        Sam2Segmenter.from_files(tmp_path)
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged"):
        Sam2Segmenter.from_files(tmp_path)

    # A pickled file is not opened even where it is all there is.
    weights.unlink()
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        Sam2Segmenter.from_files(tmp_path)

    config.write_text(json.dumps({"model_type": "resnet"}))
    with pytest.raises(ValueError, match=r"model_type is 'resnet', known are sam2"):
        Sam2Segmenter.from_files(tmp_path)
    config.write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: not what transformers writes"):
        Sam2Segmenter.from_files(tmp_path)


def test_a_processor_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="pictures of 56 x 56, the model takes 64 x 64"):
        Sam2Segmenter(tiny(), processor("sam3").image_processor)
    with pytest.raises(ValueError, match="prompts_per_batch is 0"):
        Sam2Segmenter(tiny(), prompts_per_batch=0)


def test_a_missing_package_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    tiny().save_pretrained(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r'pip install -e "\.\[sam2\]"'):
        Sam2Segmenter.from_files(tmp_path)


@pytest.mark.slow
def test_the_published_sizes(tmp_path: Path) -> None:
    """A whole SAM 2.1 tiny with random weights, through its folder; its config alone tells the larger ones apart."""
    torch.manual_seed(0)
    transformers.Sam2Model(transformers.Sam2Config()).save_pretrained(tmp_path)
    segmenter = load("sam2.1_hiera_tiny", tmp_path)
    (features,) = segmenter.encode([picture(120, 200)])
    assert features.embedding.shape == (256, 64, 64)
    assert [level.shape for level in features.high_resolution] == [(32, 256, 256), (64, 128, 128)]
    found = segmenter.decode(features, points=POINTS)
    assert found.logits.shape == (9, 256, 256) and features.chain.source == (256, 256)
    with pytest.raises(ValueError, match=r"is not sam2\.1_hiera_small but sam2\.1_hiera_tiny"):
        load("sam2.1_hiera_small", tmp_path)
    shutil.rmtree(tmp_path)
