"""A vocabulary is checked when it is made: shapes, numbers, names; and has one digest for one content."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trackmill.models.detic.vocabulary import Vocabulary, as_vocabulary
from trackmill.schemas.errors import InputError

VECTORS = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
NAMES = ("person", "traffic light", "“café”")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, np.uint8, ">f4", ">i2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numbers_of_any_kind_become_float32(dtype: Any, order: Any) -> None:
    vocabulary = as_vocabulary(np.array(VECTORS.astype(dtype), order=order))
    assert vocabulary.embeddings.dtype == np.float32 and np.array_equal(vocabulary.embeddings, VECTORS)
    assert vocabulary.names == ("class 0", "class 1", "class 2") and not vocabulary.is_named
    assert (len(vocabulary), vocabulary.width) == (3, 4)
    assert vocabulary == as_vocabulary(VECTORS.tolist()) and as_vocabulary(vocabulary) is vocabulary


def test_tensors_of_torch() -> None:
    torch = pytest.importorskip("torch")
    for dtype in (torch.float16, torch.bfloat16, torch.int64):
        tensor = torch.from_numpy(VECTORS).to(dtype)
        assert np.array_equal(as_vocabulary(tensor).embeddings, VECTORS)
    assert np.array_equal(as_vocabulary(torch.from_numpy(VECTORS).requires_grad_()).embeddings, VECTORS)


def test_nobody_changes_it_afterwards() -> None:
    given = VECTORS.copy()
    vocabulary = Vocabulary(given, NAMES)
    before = vocabulary.sha256
    given[0] = 9
    assert np.array_equal(vocabulary.embeddings, VECTORS) and before == Vocabulary(VECTORS, NAMES).sha256
    with pytest.raises(ValueError, match="read-only"):
        vocabulary.embeddings[0] = 9


def test_the_digest_tells_contents_apart() -> None:
    assert Vocabulary(VECTORS, NAMES).sha256 == "49e27f9306f3fd9dc9c9aeb012a2deb9a832a2c7d0550fe7d811e8b3dfbbbc90"
    others = [
        Vocabulary(VECTORS + np.float32(1e-6), NAMES),
        Vocabulary(VECTORS, NAMES[::-1]),
        Vocabulary(VECTORS.reshape(4, 3), (*NAMES, "dog")),
        Vocabulary(VECTORS[:, :3].copy(), NAMES),
        Vocabulary(VECTORS, NAMES),
    ]
    assert len({each.sha256 for each in others}) == len(others) and len(set(others)) == len(others)


def test_the_identity_of_encoded_names_is_their_recipe() -> None:
    """Two machines encode the same names with other last bits; a run goes on from one to the other."""
    here = Vocabulary(VECTORS, NAMES).made_by("weights 1")
    there = Vocabulary(VECTORS * np.float32(1.0000002), NAMES).made_by("weights 1")
    assert here.sha256 != there.sha256 and here.identity == there.identity != here.sha256
    assert here.identity != Vocabulary(VECTORS, NAMES).made_by("weights 2").identity
    assert here.identity != Vocabulary(VECTORS, NAMES[::-1]).made_by("weights 1").identity
    assert Vocabulary(VECTORS, NAMES).identity == Vocabulary(VECTORS, NAMES).sha256


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.ones(3), r"shape \(C, D\), .*found \(3,\)"),
        (np.ones((2, 3, 4)), r"shape \(C, D\), .*found \(2, 3, 4\)"),
        (np.ones((0, 4)), r"found \(0, 4\)"),
        (np.ones((4, 0)), r"found \(4, 0\)"),
        ([[1, 2], [3]], "rows of different lengths"),
        (np.array([["a"]]), "should hold numbers, found <U1; names of classes are a list of texts"),
        ({"a", "b"}, "should hold numbers, found object"),
        (np.array([[object()]]), "should hold numbers, found object"),
        (np.ones((2, 2), bool), "should hold numbers, found bool"),
        (np.ones((2, 2), complex), "should hold numbers, found complex128"),
        (np.array([[1, 2], [np.nan, 1]]), "row 1 holds NaN"),
        (np.array([[1, 2], [1, np.inf]]), "row 1 holds NaN, infinity"),
        (np.array([[1e300, 2]]), "row 0 holds .*beyond float32"),
        (np.array([[0.0, 0], [1, 2]]), "row 0 is all zeros, which has no direction to compare with$"),
        (np.array([[1.0, 2], [0, 0]]), "row 1 is all zeros, .*background, leave it out"),
    ],
)
def test_what_is_no_vocabulary(value: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        as_vocabulary(value)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("a", "b"), "2 names for 3 vectors"),
        (("a", "", "b"), "name 2 is empty"),
        (("a", "  ", "b"), "name 2 is empty"),
        (("a", "b", "a"), "the name 'a' is there twice, as number 1 and 3"),
        (("a", "b\nc", "d"), "name 2 holds characters that cannot be printed"),
        (("a", "b", "x" * 5000), "name 3 has 5,000 characters, more than 1,000"),
    ],
)
def test_names_that_cannot_stand_for_classes(names: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=f"classes.npy: {said}") as raised:
        Vocabulary(VECTORS, names, "classes.npy")
    assert len(str(raised.value)) < 300 and "\n" not in str(raised.value)


def test_another_width_than_the_model_has() -> None:
    vocabulary = Vocabulary(np.ones((3, 768)), NAMES)
    vocabulary.check_width(768, "Detic")
    with pytest.raises(InputError, match=r"its vectors have 768 numbers, Detic compares 512: .*ViT-B/32"):
        vocabulary.check_width(512, "Detic")
    with pytest.raises(InputError, match="transpose it"):
        vocabulary.check_width(3, "Detic")
