"""Both towers against OpenAI's code: tokens exactly, vectors, hidden states and gradients within 1e-4."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

import trackmill.models.clip  # noqa: E402
from tests.clip.towers import SMALL, SMALL_CLIP, official_state, small_clip_state, small_state  # noqa: E402
from tests.fixtures import packed  # noqa: E402
from trackmill.models.clip.image_tower import ImageTowerSizes  # noqa: E402
from trackmill.models.clip.text_tower import TextTowerSizes  # noqa: E402
from trackmill.models.clip.tokenizer import tokenize  # noqa: E402
from trackmill.models.clip.towers import PUBLISHED, ClipSizes, ClipTowers  # noqa: E402
from trackmill.models.ipmot.prompts import encode_prompts, prompt_rows  # noqa: E402

Arrays = dict[str, NDArray[Any]]
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def towers() -> Iterator[ClipTowers]:
    """ViT-B/16. Its text tower is ViT-B/32's too: the two recipes draw the same tensors."""
    yield trackmill.models.clip.load_towers(official_state(), expected=PUBLISHED["vit_b_16"])


@pytest.fixture(scope="module")
def numbers() -> Arrays:
    return packed.read_arrays("clip_vitb16/clip_vitb16.npz")


@torch.inference_mode()
def test_names_of_classes_as_openai_encodes_them(towers: ClipTowers) -> None:
    stored = packed.read_arrays("detic_r50/clip_text.npz")
    assert np.abs(towers.text(torch.from_numpy(stored["tokens"])).numpy() - stored["embeddings"]).max() < TOLERANCE
    pytest.importorskip("open_clip", reason='needs pip install -e ".[detic]"')
    assert np.array_equal(tokenize([f"a {name}" for name in stored["names"].tolist()]).numpy(), stored["tokens"])


def _rules(name: str) -> dict[str, tuple[tuple[int, ...], str]]:
    alike = {"fan_in": "matrix", "norm_weight": "near_one"}
    entries = packed.read_json(name)["entries"]
    rules = {each["name"]: (tuple(each["shape"]), alike.get(each["fill"], each["fill"])) for each in entries}
    return {key: rule for key, rule in rules.items() if not key.startswith(("visual.", "logit_scale"))}


def _sample(numbers: Arrays, key: str, values: Any) -> float:
    """Largest difference between values and a stored sample of them."""
    sample, flat = numbers[f"{key}.sample"], values.numpy().ravel()
    assert tuple(values.shape) == tuple(numbers[f"{key}.shape"])
    return float(np.abs(flat[np.arange(len(sample)) * flat.size // len(sample)] - sample).max())


def _blocks_against(numbers: Arrays, key: str, blocks: Any, values: Any, causal: bool) -> None:
    for number, block in enumerate(blocks):
        values = block(values, causal)
        if number in (0, 5, 11):
            assert _sample(numbers, f"{key}.{number}", values) < TOLERANCE


@torch.inference_mode()
def test_prompts_with_learned_vectors_as_vit_b16_encodes_them(towers: ClipTowers, numbers: Arrays) -> None:
    assert _rules("clip_vitb16/manifest.json") == _rules("detic_r50/clip_text_manifest.json")
    tower, tokens = towers.text, torch.from_numpy(numbers["token_ids"])
    assert int(tokens.argmax()) == int(numbers["eot"])
    assert np.abs(tower(tokens).numpy() - numbers["text.literal.embedding"]).max() < TOLERANCE

    rows = tower.token_embedding(tokens)
    rows[:, 5:9] = torch.from_numpy(numbers["context"])
    assert np.abs(rows[0, :12].numpy() - numbers["text.input_rows"]).max() < 1e-6
    own = prompt_rows(tower, torch.from_numpy(numbers["context"])[None])
    assert torch.equal(own, rows[:, :11])
    assert _sample(numbers, "text.prompt.hidden", tower.hidden(rows)) < TOLERANCE
    _blocks_against(
        numbers, "prompt.text.block", tower.transformer.resblocks, rows + tower.positional_embedding, causal=True
    )


def test_pictures_and_prompts_as_vit_b16_compares_them(towers: ClipTowers, numbers: Arrays) -> None:
    generator = torch.Generator().manual_seed(0)
    square, upright = (torch.rand(1, 3, *size, generator=generator) for size in ((224, 224), (256, 128)))
    context = torch.from_numpy(numbers["context"])
    assert torch.equal(torch.randn(4, 512, generator=generator) * 0.02, context)
    with torch.inference_mode():
        tokens = towers.image.tokens(square)
        _blocks_against(numbers, "square.image.block", towers.image.transformer.resblocks, tokens, causal=False)
        image = towers.image(square)
        assert np.abs(image.numpy() - numbers["image.embedding"]).max() < TOLERANCE
        for resizing in ("bilinear", "bicubic"):
            towers.image.resizing = resizing
            assert np.abs(towers.image(upright).numpy() - numbers[f"rect.{resizing}.embedding"]).max() < TOLERANCE
        towers.image.resizing = "bilinear"

    context.requires_grad_()
    text = encode_prompts(towers.text, context[None])
    assert np.abs(text.detach().numpy() - numbers["text.prompt.embedding"]).max() < TOLERANCE
    cosine = torch.cosine_similarity(image.clone(), text)
    cosine.sum().backward()
    assert abs(cosine.item() - numbers["cosine.image_prompt"].item()) < TOLERANCE
    assert abs(100 * cosine.item() - numbers["logits.image_prompt"].item()) < TOLERANCE
    assert context.grad is not None
    assert np.abs(context.grad.numpy() - numbers["text.prompt.grad_of_cosine"]).max() < TOLERANCE


@torch.inference_mode()
def test_what_stands_behind_the_end_does_not_count() -> None:
    tower = trackmill.models.clip.load(small_state())
    tokens = torch.zeros(2, 77, dtype=torch.int64)
    tokens[0, :4], tokens[1, :8] = torch.tensor([49406, 320, 1929, 49407]), torch.tensor([49406, *range(5, 11), 49407])
    together, behind = tower(tokens), tokens.clone()
    behind[0, 10:] = 7
    for other in (tower(behind), torch.cat([tower(each[None]) for each in tokens])):
        assert torch.allclose(other, together, atol=1e-6)
    assert together.shape == (2, SMALL.embedding) and tower(tokens[:0]).shape == (0, SMALL.embedding)


def test_the_ids_of_the_prompt_are_the_tokenizers(numbers: Arrays) -> None:
    pytest.importorskip("open_clip", reason='needs pip install -e ".[detic]"')
    assert np.array_equal(tokenize(["A photo of a X X X X person"]).numpy(), numbers["token_ids"])


@torch.inference_mode()
def test_pictures_of_any_grid_keep_the_class_position() -> None:
    tower = trackmill.models.clip.load_towers(small_clip_state()).image
    table = tower.positional_embedding
    assert torch.equal(tower.positions(4, 4), table) and tower.positions(6, 3).shape == (19, 64)
    assert torch.equal(tower.positions(6, 3)[0], table[0])
    # Half as many rows: each is the mean of the two that it lies between, without a wider filter.
    expected = table[1:].reshape(2, 2, 4, 64).mean(dim=1)
    assert torch.allclose(tower.positions(2, 4)[1:].reshape(2, 4, 64), expected, atol=1e-6)
    assert tower(torch.zeros(2, 3, 48, 24)).shape == (2, 48) and tower(torch.zeros(0, 3, 32, 32)).shape == (0, 48)
    with pytest.raises(ValueError, match="patches of 8"):
        tower(torch.zeros(1, 3, 50, 24))


def test_both_towers_are_never_trained() -> None:
    towers = ClipTowers(SMALL_CLIP)
    towers.train(True)
    around = torch.nn.Sequential(towers).train()
    assert around.training and not any(each.training for each in towers.modules())
    assert not any(each.requires_grad for each in towers.parameters())


@pytest.mark.parametrize(
    ("text", "image", "said"),
    [
        ({"width": 100}, {}, r"text\.width is 100: a multiple of 64"),
        ({}, {"grid": 0}, r"image\.grid is 0: at least 1"),
        ({}, {"embedding": 256}, "texts get 512 numbers and pictures 256"),
    ],
)
def test_sizes_that_no_tower_has_are_refused(text: dict[str, int], image: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ClipSizes(text=TextTowerSizes(**text), image=ImageTowerSizes(**image))
