"""Vocabularies as bytes: `.npy` (vectors alone) and `.npz` (vectors, names, how they were made). Nothing is unpickled.

An array says in its header how large it is, and NumPy makes room for that: here the header is compared with the bytes
that are there first.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackmill.models.detic.vocabulary import Vocabulary, unnamed
from trackmill.schemas.errors import InputError

MAX_VECTOR_BYTES = 1 << 30
"""Of a file of vectors, also unpacked. 22,047 classes of 512 float32 numbers have 45 MB."""

EMBEDDINGS, NAMES, RECIPE = "embeddings", "names", "recipe"
"""Arrays of an `.npz`: (C, D) numbers, (C,) texts, and one text."""

_MAX_HEADER = 64 << 10
_MAX_SIDES = 32
_DATE = (1980, 1, 1, 0, 0, 0)


def vocabulary_bytes(vocabulary: Vocabulary) -> bytes:
    """An `.npz` of a vocabulary: `embeddings` (C, D) float32, `names` (C,), `recipe`. The same bytes at any time.

    `numpy.load(path)` reads it.
    """
    recipe = ""
    if vocabulary.recipe:
        # With the digest: whoever changes the vectors makes a vocabulary of his own, whatever the recipe says.
        recipe = json.dumps({"of": vocabulary.sha256, "recipe": vocabulary.recipe}, sort_keys=True)
    buffer = io.BytesIO()
    arrays = {EMBEDDINGS: vocabulary.embeddings, NAMES: np.array(vocabulary.names), RECIPE: np.array(recipe)}
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _DATE), member.getvalue())
    return buffer.getvalue()


def vocabulary_from_bytes(data: bytes, where: str, names: Sequence[str] | None = None) -> Vocabulary:
    """A vocabulary out of the bytes of an `.npy` or `.npz` file.

    Args:
        data: of the whole file.
        where: what messages call it.
        names: of the classes; None: those in the file, or else `class 0` and so on.

    Raises:
        InputError: not such a file, larger than `MAX_VECTOR_BYTES` when unpacked, objects of Python in it, or see
            `Vocabulary`.
    """
    arrays = _arrays(data, where)
    vectors = arrays[EMBEDDINGS]
    found = names
    if found is None and NAMES in arrays:
        found = _texts(arrays[NAMES], where)
    vocabulary = Vocabulary(vectors, unnamed(len(vectors)) if found is None else tuple(found), where)
    recipe = _recipe(arrays.get(RECIPE), vocabulary.sha256) if names is None else ""
    return vocabulary.made_by(recipe) if recipe else vocabulary


def names_from_bytes(data: bytes, where: str) -> tuple[str, ...]:
    """The names in an `.npz`.

    Raises:
        InputError: it has none, or see `vocabulary_from_bytes`.
    """
    arrays = _arrays(data, where)
    if NAMES not in arrays:
        raise InputError(f"{where}: holds no names of classes; put them into a .txt file beside it, one a line")
    return vocabulary_from_bytes(data, where).names


def _arrays(data: bytes, where: str) -> dict[str, NDArray[Any]]:
    if not data.startswith(b"PK"):
        return {EMBEDDINGS: _array(data, where)}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {each.filename.removesuffix(".npy"): each for each in archive.infolist()}
            key = _key_of_vectors(members, where)
            wanted = {EMBEDDINGS: members[key]} | {each: members[each] for each in (NAMES, RECIPE) if each in members}
            size = sum(each.file_size for each in wanted.values())
            if size > MAX_VECTOR_BYTES:
                raise InputError(f"{where}: unpacks to {size:,} bytes, more than {MAX_VECTOR_BYTES:,}")
            found = {}
            for name, member in wanted.items():
                with archive.open(member) as handle:
                    # What a member says of its size may be a lie.
                    unpacked = handle.read(member.file_size + 1)
                found[name] = _array(unpacked, f"{where}: {name}")
            return found
    except InputError:
        raise
    except Exception as error:  # of zipfile and zlib, whatever they make of damaged bytes
        said = f"{type(error).__name__}: {error}"[:120]
        raise InputError(f"{where}: no whole .npz file ({said}); make or fetch it again") from None


def _key_of_vectors(members: Mapping[str, Any], where: str) -> str:
    """`embeddings`, or the one array beside the names."""
    if EMBEDDINGS in members:
        return EMBEDDINGS
    others = [name for name in members if name not in (NAMES, RECIPE)]
    if len(others) != 1:
        found = ", ".join(name[:40] for name in list(members)[:8]) or "nothing"
        raise InputError(f"{where}: holds no array 'embeddings' of shape (C, D), found {found}")
    return others[0]


def _array(data: bytes, where: str) -> NDArray[Any]:
    """The array of an `.npy`, whose header is compared with the bytes that are there before room is made for it."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read(stream, max_header_size=_MAX_HEADER)
    except Exception:  # whose words are those of a parser of Python
        hint = "; it begins like a web page" if data.lstrip()[:1] == b"<" else ""
        hint = "; a pointer of Git LFS: `git lfs pull` fetches the file" if data.startswith(b"version https") else hint
        raise InputError(f"{where}: no array of NumPy (.npy), or damaged{hint}") from None
    if dtype.hasobject:
        raise InputError(f"{where}: holds objects of Python, which are not read; save numbers and texts")
    if len(shape) > _MAX_SIDES or not dtype.itemsize or max(map(int, shape), default=0) > MAX_VECTOR_BYTES:
        # Of these NumPy makes no array, or one of any length out of no bytes.
        said = f"{len(shape)} sides" if len(shape) > _MAX_SIDES else f"{shape} of {dtype}"
        raise InputError(f"{where}: says that it has {said}, which no vocabulary has; it is damaged")
    begin, count = stream.tell(), math.prod(map(int, shape))
    if any(int(side) < 0 for side in shape) or count * dtype.itemsize != len(data) - begin:
        raise InputError(
            f"{where}: says that it is {shape} of {dtype}, and has {len(data) - begin:,} bytes instead of "
            f"{count * dtype.itemsize:,}: it is cut short or damaged"
        )
    values: NDArray[Any] = np.frombuffer(data, dtype, count, begin) if count else np.empty(0, dtype)
    return values.reshape(shape, order="F" if by_columns else "C")


def _texts(values: NDArray[Any], where: str) -> tuple[str, ...]:
    if values.ndim != 1 or values.dtype.kind not in "US":
        raise InputError(f"{where}: names should be (C,) texts, found {values.dtype} {values.shape}")
    if values.dtype.kind == "U":
        return tuple(values.tolist())
    try:
        return tuple(each.decode() for each in values.tolist())
    except UnicodeDecodeError:
        raise InputError(f"{where}: its names are no UTF-8") from None


def _recipe(values: NDArray[Any] | None, sha256: str) -> str:
    """How a vocabulary was made, where the file says so and its vectors are still those."""
    if values is None or values.dtype.kind != "U" or values.ndim:
        return ""
    try:
        said = json.loads(str(values))
    except (ValueError, RecursionError):
        return ""
    fits = isinstance(said, dict) and said.get("of") == sha256 and isinstance(said.get("recipe"), str)
    return str(said["recipe"]) if fits else ""
