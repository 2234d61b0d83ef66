"""CLIP files of every layout load into the same tower, in float32; what does not fit is named."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch").save_file

import trackmill.models.clip  # noqa: E402
from tests.clip.towers import (  # noqa: E402
    SMALL,
    SMALL_CLIP,
    State,
    hugging_face_state,
    small_clip_state,
    small_state,
)
from trackmill.models.clip.image_tower import ImageTower  # noqa: E402
from trackmill.models.clip.text_tower import TextTower  # noqa: E402
from trackmill.models.clip.towers import PUBLISHED  # noqa: E402

TOKENS = torch.tensor([[49406, 320, 1929, 49407] + [0] * 73, [49406, 320, 2368, 1929, 49407] + [0] * 72])


def vectors(weights: object) -> torch.Tensor:
    with torch.inference_mode():
        return trackmill.models.clip.load(weights)(TOKENS)  # type: ignore[arg-type]


def openai_archive(path: Path, state: State) -> Path:
    """As OpenAI's: a TorchScript archive in half precision, with the image tower and three numbers."""
    tower = TextTower(SMALL)
    tower.visual = ImageTower(SMALL_CLIP.image)
    tower.load_state_dict(
        {name: each for name, each in state.items() if name != "logit_scale"}, strict="visual.proj" in state
    )
    for name in ("input_resolution", "context_length", "vocab_size"):
        tower.register_buffer(name, torch.tensor(77))
    tower.logit_scale = torch.nn.Parameter(torch.tensor(4.6))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(tower.half(), (TOKENS,), check_trace=False), path)
    return path


def openai_state(path: Path, state: State) -> Path:
    torch.save(state | {"visual.proj": torch.ones(2), "logit_scale": torch.tensor(4.6)}, path)
    return path


def hugging_face(path: Path, state: State) -> Path:
    save_file(hugging_face_state(state), path)
    return path


def hugging_face_text_only(path: Path, state: State) -> Path:
    kept = {name: each for name, each in hugging_face_state(state).items() if name.startswith("text_")}
    torch.save({"state_dict": kept}, path)
    return path


@pytest.mark.parametrize("write", [openai_archive, openai_state, hugging_face, hugging_face_text_only])
def test_every_layout_gives_the_same_vectors(write: Callable[[Path, State], Path], tmp_path: Path) -> None:
    state = {name: each.half().float() for name, each in small_state().items()}
    path = write(tmp_path / "clip.pt", state)
    tower = trackmill.models.clip.load(path)
    assert all(each.dtype == torch.float32 and each.device.type == "cpu" for each in tower.state_dict().values())
    assert not tower.training and torch.equal(vectors(path), vectors(state))
    assert (tower.sizes.layers, tower.sizes.context, tower.sizes.vocabulary) == (2, 77, 49408)


def test_it_computes_what_transformers_computes() -> None:
    transformers = pytest.importorskip("transformers")
    text = {"vocab_size": 49408, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2,
            "num_attention_heads": 1, "hidden_act": "quick_gelu", "eos_token_id": 49407}  # fmt: skip
    image = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 2,
             "hidden_act": "quick_gelu", "image_size": 32, "patch_size": 8}  # fmt: skip
    config = transformers.CLIPConfig(text_config=text, vision_config=image, projection_dim=48)
    theirs, pictures = transformers.CLIPModel(config).eval(), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        for number, each in enumerate(theirs.parameters()):
            each.copy_(torch.randn(each.shape, generator=torch.Generator().manual_seed(number)) * 0.1)
        of_texts = theirs.text_projection(theirs.text_model(input_ids=TOKENS).pooler_output)
        of_pictures = theirs.visual_projection(theirs.vision_model(pixel_values=pictures).pooler_output)
        towers = trackmill.models.clip.load_towers(theirs.state_dict())
        assert torch.allclose(towers.image(pictures), of_pictures, atol=1e-5)
    assert towers.sizes.image.grid == 4 and towers.sizes.image.layers == 3
    assert torch.allclose(vectors(theirs.state_dict()), of_texts, atol=1e-5)


def test_both_towers_of_openais_archive(tmp_path: Path) -> None:
    state = {name: each.half().float() for name, each in small_clip_state().items()}
    towers = trackmill.models.clip.load_towers(openai_archive(tmp_path / "clip.pt", state), expected=SMALL_CLIP)
    own = towers.state_dict()
    assert len(own) == len(state) - 1 and all(each.dtype == torch.float32 for each in own.values())
    for name, each in state.items():
        if name != "logit_scale":
            image = name.startswith("visual.")
            assert torch.equal(own[f"image.{name[7:]}" if image else f"text.{name}"], each), name
    assert torch.equal(towers.text(TOKENS), vectors(state))


def test_recognise() -> None:
    state = small_state()
    assert trackmill.models.clip.recognise(state) == "openai"
    assert trackmill.models.clip.recognise(hugging_face_state(state)) == "huggingface"
    assert trackmill.models.clip.recognise({"backbone.weight": torch.ones(1)}) is None


def without(state: State, *names: str) -> State:
    return {name: each for name, each in state.items() if name not in names}


BLOCK = "transformer.resblocks.1"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: {"backbone.weight": s["text_projection"]}, "no text tower of CLIP in it"),
        (lambda s: without(s, "text_projection"), r"no whole text tower of CLIP: .* and 2 blocks"),
        (lambda s: without(s, f"{BLOCK}.ln_1.bias"), rf"1 missing: {BLOCK}\.ln_1\.bias"),
        (lambda s: s | {"extra.weight": torch.ones(1)}, r"1 unexpected: extra\.weight"),
        (lambda s: s | {"ln_final.bias": torch.ones(3)}, r"1 of another shape: ln_final\.bias \(3,\) instead"),
        (lambda s: s | {"ln_final.bias": torch.full((64,), torch.nan)}, r"1 with NaN or infinity: ln_final\.bias"),
        (lambda s: {n.replace("blocks.1", "blocks.9"): e for n, e in s.items()}, "2 blocks up to 9"),
        (lambda s: without(hugging_face_state(s), "text_projection.weight"), "holds no text_projection"),
        (
            lambda s: without(hugging_face_state(s), "text_model.encoder.layers.1.self_attn.k_proj.bias"),
            r"encoder\.layers\.1\.self_attn\.q_proj\.bias has no k_proj and v_proj",
        ),
        (
            lambda s: without(hugging_face_state(s), "text_model.encoder.layers.0.mlp.fc1.bias"),
            r"1 missing: transformer\.resblocks\.0\.mlp\.c_fc\.bias",
        ),
    ],
    ids=[
        "another model", "no projection", "missing", "unexpected", "shape", "nan", "gap", "no projection (HF)",
        "no keys (HF)", "missing (HF)",
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(change: Callable[[State], State], said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        trackmill.models.clip.load(change(small_state()))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: small_state(), "no image tower of CLIP in it: take the file of the whole CLIP"),
        (lambda s: small_state() | {"visual.layer1.0.conv1.weight": torch.ones(1)}, "the image tower is a ResNet"),
        (lambda s: without(s, "visual.proj"), r"no whole image tower of CLIP: .* \(\) and 2 blocks"),
        (lambda s: s | {"visual.positional_embedding": torch.ones(18, 64)}, "18 positions are no square and a class"),
        (lambda s: without(s, "visual.ln_pre.bias"), r"1 missing: image\.ln_pre\.bias"),
        (lambda s: s | {"visual.extra": torch.ones(1)}, r"1 unexpected: image\.extra"),
        (lambda s: s | {"visual.proj": torch.ones(64, 40)}, "its texts get 48 numbers and its pictures 40"),
        (lambda s: without(s, "visual.transformer.resblocks.0.ln_1.bias"), r"image\.transformer\.resblocks\.0"),
        (lambda s: hugging_face_state(s), "no whole image tower of CLIP"),
        (lambda s: without(hugging_face_state(s), "visual_projection.weight"), "holds no visual_projection"),
    ],
    ids=["text only", "ResNet", "no projection", "positions", "missing", "unexpected", "lengths", "missing in a block",
         "no image tower (HF)", "no projection (HF)"],
)  # fmt: skip
def test_what_does_not_fit_of_both_is_named(change: Callable[[State], State], said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        trackmill.models.clip.load_towers(change(small_clip_state()))
    assert "\n" not in str(raised.value)


def test_other_sizes_than_expected_are_named() -> None:
    with pytest.raises(ValueError, match=r"text width 64 instead of 512.*image patch 8 instead of 16"):
        trackmill.models.clip.load_towers(small_clip_state(), expected=PUBLISHED["vit_b_16"])
