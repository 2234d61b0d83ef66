"""CLIP files of every layout load into the same tower, in float32; what does not fit is named."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch").save_file

import trackmill.models.clip  # noqa: E402
from tests.clip.towers import SMALL, State, hugging_face_state, small_state  # noqa: E402
from trackmill.models.clip.text_tower import TextTower  # noqa: E402

TOKENS = torch.tensor([[49406, 320, 1929, 49407] + [0] * 73, [49406, 320, 2368, 1929, 49407] + [0] * 72])


def vectors(weights: object) -> torch.Tensor:
    with torch.inference_mode():
        return trackmill.models.clip.load(weights)(TOKENS)  # type: ignore[arg-type]


def openai_archive(path: Path, state: State) -> Path:
    """As OpenAI's: a TorchScript archive in half precision, with the image tower and three numbers."""
    tower = TextTower(SMALL)
    tower.load_state_dict(state)
    tower.visual = torch.nn.Linear(2, 2)
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
    config = transformers.CLIPTextConfig(
        vocab_size=49408, hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=1,
        projection_dim=48, hidden_act="quick_gelu", eos_token_id=49407,
    )  # fmt: skip
    theirs = transformers.CLIPTextModelWithProjection(config).eval()
    with torch.no_grad():
        for number, each in enumerate(theirs.parameters()):
            each.copy_(torch.randn(each.shape, generator=torch.Generator().manual_seed(number)) * 0.1)
        expected = theirs(input_ids=TOKENS).text_embeds
    assert torch.allclose(vectors(theirs.state_dict()), expected, atol=1e-5)


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
