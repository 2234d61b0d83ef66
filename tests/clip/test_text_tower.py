"""The text tower against OpenAI's code: tokens exactly, vectors and hidden states within 1e-4."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip", reason='needs pip install -e ".[detic]"')

import trackmill.models.clip  # noqa: E402
from tests.clip.towers import SMALL, official_state, small_state  # noqa: E402
from tests.fixtures import packed  # noqa: E402
from trackmill.models.clip.text_tower import TextTower  # noqa: E402

Arrays = dict[str, NDArray[Any]]
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def tower() -> Iterator[TextTower]:
    """ViT-B/32's text tower, which ViT-B/16 shares: the two recipes draw the same tensors."""
    yield trackmill.models.clip.load(official_state())


@torch.inference_mode()
def test_names_of_classes_as_openai_encodes_them(tower: TextTower) -> None:
    numbers = packed.read_arrays("detic_r50/clip_text.npz")
    tokens = trackmill.models.clip.tokenize([f"a {name}" for name in numbers["names"].tolist()])
    assert np.array_equal(tokens.numpy(), numbers["tokens"])
    assert np.abs(tower(tokens).numpy() - numbers["embeddings"]).max() < TOLERANCE


def _rules(name: str) -> dict[str, tuple[tuple[int, ...], str]]:
    alike = {"fan_in": "matrix", "norm_weight": "near_one"}
    entries = packed.read_json(name)["entries"]
    rules = {each["name"]: (tuple(each["shape"]), alike.get(each["fill"], each["fill"])) for each in entries}
    return {key: rule for key, rule in rules.items() if not key.startswith(("visual.", "logit_scale"))}


def _sample(numbers: Arrays, key: str, values: Any) -> float:
    """Largest difference between values and a stored sample of them."""
    sample, flat = numbers[f"{key}.sample"], values.numpy().ravel()
    return float(np.abs(flat[np.arange(len(sample)) * flat.size // len(sample)] - sample).max())


@torch.inference_mode()
def test_prompts_with_learned_vectors_as_vit_b16_encodes_them(tower: TextTower) -> None:
    assert _rules("clip_vitb16/manifest.json") == _rules("detic_r50/clip_text_manifest.json")
    numbers = packed.read_arrays("clip_vitb16/clip_vitb16.npz")
    tokens = trackmill.models.clip.tokenize(["A photo of a X X X X person"])
    assert np.array_equal(tokens.numpy(), numbers["token_ids"]) and int(tokens.argmax()) == int(numbers["eot"])
    assert np.abs(tower(tokens).numpy() - numbers["text.literal.embedding"]).max() < TOLERANCE

    rows = tower.token_embedding(tokens)
    rows[:, 5:9] = torch.from_numpy(numbers["context"])
    assert np.abs(rows[0, :12].numpy() - numbers["text.input_rows"]).max() < 1e-6
    assert _sample(numbers, "text.prompt.hidden", tower.hidden(rows)) < TOLERANCE
    embedding = tower.encode_rows(rows, tokens.argmax(-1))
    assert np.abs(embedding.numpy() - numbers["text.prompt.embedding"]).max() < TOLERANCE
    values = rows + tower.positional_embedding
    for number, block in enumerate(tower.transformer.resblocks):
        values = block(values, True)
        if number in (0, 5, 11):
            assert _sample(numbers, f"prompt.text.block.{number}", values) < TOLERANCE


@torch.inference_mode()
def test_what_stands_behind_the_end_does_not_count() -> None:
    tower = trackmill.models.clip.load(small_state())
    tokens = trackmill.models.clip.tokenize(["a dog", "a very long name of a class that nobody has"])
    together, behind = tower(tokens), tokens.clone()
    behind[0, 10:] = 7
    for other in (tower(behind), torch.cat([tower(each[None]) for each in tokens])):
        assert torch.allclose(other, together, atol=1e-6)
    assert together.shape == (2, SMALL.embedding) and tower(tokens[:0]).shape == (0, SMALL.embedding)
