"""Files of vectors: what NumPy writes is read, what was made to fill memory or run code is refused by name."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trackmill.models.detic.vocabulary import Vocabulary
from trackmill.pipeline.vocabulary import arrays, vocabulary_bytes, vocabulary_from_bytes
from trackmill.pipeline.vocabulary.arrays import names_from_bytes
from trackmill.schemas.errors import InputError

VECTORS = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
NAMES = ("person", "traffic light", "“café”")


def npy(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def npz(packed: bool = False, **members: Any) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(buffer, **members)
    return buffer.getvalue()


def refused(data: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said) as raised:
        vocabulary_from_bytes(data, "mine.npz")
    assert str(raised.value).startswith("mine.npz: ") and "\n" not in str(raised.value) and len(str(raised.value)) < 400


@pytest.mark.parametrize("recipe", ["", "weights 1"])
def test_what_is_written_is_read(recipe: str, tmp_path: Path) -> None:
    vocabulary = Vocabulary(VECTORS, NAMES).made_by(recipe)
    data = vocabulary_bytes(vocabulary)
    assert data == vocabulary_bytes(Vocabulary(VECTORS.copy(), NAMES).made_by(recipe))
    again = vocabulary_from_bytes(data, "here")
    assert again == vocabulary and again.recipe == recipe and again.identity == vocabulary.identity
    (tmp_path / "a.npz").write_bytes(data)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as plain:
        assert np.array_equal(plain["embeddings"], VECTORS) and tuple(plain["names"].tolist()) == NAMES


def test_a_recipe_counts_for_its_own_vectors_alone() -> None:
    data = vocabulary_bytes(Vocabulary(VECTORS, NAMES).made_by("weights 1"))
    with np.load(io.BytesIO(data)) as plain:
        changed = npz(**{**plain, "embeddings": plain["embeddings"] + 1})
        odd = [npz(**{**plain, "recipe": np.array(text)}) for text in ("[", "[" * 100_000, "{}", "3")]
    for each in (changed, *odd):
        found = vocabulary_from_bytes(each, "here")
        assert not found.recipe and found.identity == found.sha256


@pytest.mark.parametrize(
    "data",
    [
        npy(VECTORS),
        npy(VECTORS.astype(np.float16)),
        npy(np.asfortranarray(VECTORS)),
        npy(VECTORS.astype(">f8")),
        npz(embeddings=VECTORS),
        npz(packed=True, embeddings=VECTORS, other=np.array("a")),
        npz(arr_0=VECTORS),
    ],
    ids=["float32", "float16", "by columns", "big-endian", "npz", "packed", "the only array"],
)
def test_whatever_numpy_writes(data: bytes) -> None:
    found = vocabulary_from_bytes(data, "here")
    assert np.array_equal(found.embeddings, VECTORS) and not found.is_named
    assert vocabulary_from_bytes(data, "here", NAMES).names == NAMES


def test_names_inside() -> None:
    for names in (np.array(NAMES), np.array([each.encode() for each in NAMES])):
        assert vocabulary_from_bytes(npz(embeddings=VECTORS, names=names), "here").names == NAMES
        assert names_from_bytes(npz(embeddings=VECTORS, names=names), "here") == NAMES
    with pytest.raises(InputError, match=r"a\.npy: holds no names of classes; put them into a \.txt file beside it"):
        names_from_bytes(npy(VECTORS), "a.npy")


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    trap = np.empty((1, 2), object)
    trap[:] = Trap(sprung)
    refused(npy(trap, allow_pickle=True), "holds objects of Python")
    refused(npz(embeddings=VECTORS, names=trap), "names: holds objects of Python")
    refused(npy(np.zeros(2, [("a", object)]), allow_pickle=True), "holds objects of Python")
    refused(pickle.dumps(Trap(sprung)), "no array of NumPy")
    assert not sprung.exists()


def header(shape: str, kind: str = "<f4") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (header("(1000000000, 512)") + b"\0" * 64, r"says that it is \(1000000000, 512\) of float32, and has 64 bytes"),
        (header("(-2, -8)") + b"\0" * 64, "cut short or damaged"),
        (header("(99999999999999999999999, 0)"), "which no vocabulary has"),
        (header("(99999999999, 9)", "<U0"), "which no vocabulary has"),
        (header(f"({'1, ' * 33})") + b"\0" * 4, "33 sides, which no vocabulary has"),
        (header("(2, 8)") + b"\0" * 60, "has 60 bytes instead of 64"),
        (header("(2, 8)") + b"\0" * 68, "has 68 bytes instead of 64"),
        (header("(" * 90), "no array of NumPy"),
        (header("(2, 2)", "x9"), "no array of NumPy"),
        (b"\x93NUMPY\x01\x00\xff\xff", "no array of NumPy"),
        (b"", "no array of NumPy"),
        (b"<!DOCTYPE html>", "begins like a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n", "git lfs pull"),
        (b"PK\3\4" + b"\0" * 40, r"no whole \.npz file"),
        (npz(embeddings=VECTORS)[:-40], r"no whole \.npz file"),
        (npz(a=VECTORS, b=VECTORS), "holds no array 'embeddings' .*found a, b"),
        (npz(embeddings=VECTORS, names=np.ones(3)), "names should be"),
        (npz(embeddings=VECTORS, names=np.array([b"\xff", b"a", b"b"])), "no UTF-8"),
        (npz(embeddings=VECTORS, names=np.array(["a", "b"])), "2 names for 3 vectors"),
    ],
)
def test_damaged_and_foreign_files(data: bytes, said: str) -> None:
    refused(data, said)


def test_a_flipped_bit_in_an_npz() -> None:
    data = bytearray(vocabulary_bytes(Vocabulary(VECTORS, NAMES)))
    data[data.index(VECTORS.tobytes()) + 5] ^= 4
    refused(bytes(data), r"no whole \.npz file \(BadZipFile: Bad CRC-32")


def test_files_that_unfold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "MAX_VECTOR_BYTES", 1 << 20)
    bomb = npz(packed=True, embeddings=np.ones((1000, 512), np.float32))
    assert len(bomb) < 20_000
    refused(bomb, "unpacks to 2,048,128 bytes, more than 1,048,576")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("embeddings.npy", b"\0" * (1 << 24))
    lie = buffer.getvalue().replace((1 << 24).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    refused(lie, r"no whole \.npz file|no array of NumPy")
