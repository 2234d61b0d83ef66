"""A vocabulary: the vectors of C classes, by which an open-vocabulary detector scores boxes, and the classes' names.

vocabulary = as_vocabulary(np.load("classes.npy"))      # (C, 512); named "class 0", "class 1", ...
vocabulary = as_vocabulary("lvis")                      # or whatever else `--classes` takes
vocabulary = as_vocabulary(["person", "traffic light"], text_weights="ViT-B-32.pt")
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trackmill.models.outside import import_object
from trackmill.schemas.errors import InputError
from trackmill.schemas.names import shortened

if TYPE_CHECKING:
    from torch import Tensor

MAX_NAME = 1000
"""Characters of a name. CLIP reads some 300."""

_SHOWN = 60
"""So many characters of a name are quoted."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """C classes, checked when they are made and by nobody after that.

    Args:
        embeddings: (C, D) float32, one vector a class; of any length, since detectors bring them to length 1. A copy
            is kept that nobody can write to.
        names: of the classes, in the order of the rows.
        where: what messages call it.
        recipe: how the vectors were made of the names, where they were (weights, prompt); "" where nobody knows.

    Raises:
        InputError: not (C, D) numbers with C and D at least 1; a number that is not finite; a vector of zeros; another
            number of names than of vectors; a name that is empty or there twice. The text names the row or the name.
    """

    embeddings: NDArray[np.float32]
    names: tuple[str, ...]
    where: str = "the vocabulary"
    recipe: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "embeddings", _checked(self.embeddings, self.where))
        object.__setattr__(self, "names", tuple(map(str, self.names)))
        if len(self.names) != len(self.embeddings):
            raise InputError(
                f"{self.where}: {len(self.names):,} names for {len(self.embeddings):,} vectors; each class needs one "
                "of both, in the same order"
            )
        check_names(self.names, self.where)

    def __len__(self) -> int:
        """Number of classes."""
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    @property
    def width(self) -> int:
        """D, the length of a vector: 512 for CLIP ViT-B/32."""
        return int(self.embeddings.shape[1])

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 over the vectors and the names, 64 hexadecimal digits: for fingerprints.

        Two vocabularies of one digest give the same detections under the same names.
        """
        head = json.dumps([list(self.embeddings.shape), self.names], separators=(",", ":"))
        return hashlib.sha256(head.encode() + b"\n" + self.embeddings.astype("<f4").tobytes()).hexdigest()

    @functools.cached_property
    def identity(self) -> str:
        """What a fingerprint holds, 64 hexadecimal digits: the SHA-256 of recipe and names, or else `sha256`.

        Two machines make vectors of names that differ in their last bits. A run that begins on one and goes on with the
        other has the same recipe and the same names, and so the same identity.
        """
        if not self.recipe:
            return self.sha256
        return hashlib.sha256(json.dumps([self.recipe, self.names], separators=(",", ":")).encode()).hexdigest()

    @property
    def is_named(self) -> bool:
        """Whether the names are more than `class 0`, `class 1`, ..."""
        return self.names != unnamed(len(self))

    def made_by(self, recipe: str) -> Vocabulary:
        """The same vocabulary, with what is known of its making."""
        return dataclasses.replace(self, recipe=recipe)

    def check_width(self, width: int, what: str) -> None:
        """Refuse vectors that a model cannot compare with its own.

        Args:
            width: D of the model.
            what: the model's name, for the message.

        Raises:
            InputError: another D.
        """
        if self.width == width:
            return
        turned = f"; it has {width} rows, so perhaps it is (D, C): transpose it" if len(self) == width else ""
        raise InputError(
            f"{self.where}: its vectors have {self.width} numbers, {what} compares {width}: take the vectors of the "
            f"text tower that the model was trained with (CLIP ViT-B/32 for Detic: 512){turned}"
        )


def as_vocabulary(value: Any, text_weights: str | os.PathLike[str] | Mapping[str, Tensor] | None = None) -> Vocabulary:
    """Whatever stands for a vocabulary as one.

    Args:
        value: a `Vocabulary`; numbers of shape (C, D) as a NumPy array, a torch tensor on any device or nested lists,
            of integers or floats of any width; a sequence of class names; or a text or path as `--classes` takes it:
            `person,dog`, a file (`.txt`, `.npy`, `.npz`, a path or a URL), or `lvis`.
        text_weights: CLIP's weights for class names, see `trackmill.pipeline.vocabulary.read_vocabulary`.

    Raises:
        InputError: none of these, or not what a vocabulary must be; the text says why.
        OSError: a file could not be found, fetched or read.
        MissingPackage: class names need CLIP's tokenizer and it is not installed; says what to type.
    """
    if isinstance(value, Vocabulary):
        return value
    if isinstance(value, str | os.PathLike) or _are_texts(value):
        # By name, when it is asked for: files and caches are pipeline's, and models import nothing of it.
        read = import_object("trackmill.pipeline.vocabulary:read_vocabulary", "the reader of vocabularies")
        found: Vocabulary = read(value, text_weights)
        return found
    if hasattr(value, "detach"):  # a torch tensor; torch itself is not needed here
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    embeddings = _checked(value, "the vocabulary")
    return Vocabulary(embeddings, unnamed(len(embeddings)))


def unnamed(num_classes: int) -> tuple[str, ...]:
    """Names for classes whose names nobody knows: `class 0`, `class 1`, ..."""
    return tuple(f"class {number}" for number in range(num_classes))


def check_names(names: Iterable[str], where: str) -> None:
    """Refuse names that cannot stand for classes.

    Raises:
        InputError: one is empty or blank, longer than `MAX_NAME`, holds a line break or another control character, or
            is there twice; says which.
    """
    places: dict[str, int] = {}
    for place, name in enumerate(names, start=1):
        shown = shortened(name, _SHOWN)
        if not name.strip():
            raise InputError(f"{where}: name {place:,} is empty; give each class a name")
        if len(name) > MAX_NAME:
            raise InputError(f"{where}: name {place:,} has {len(name):,} characters, more than {MAX_NAME:,}: {shown!r}")
        if not name.isprintable():
            raise InputError(f"{where}: name {place:,} holds characters that cannot be printed: {shown!r}")
        if name in places:
            raise InputError(
                f"{where}: the name {shown!r} is there twice, as number {places[name]:,} and {place:,}; leave one out "
                "or rename it"
            )
        places[name] = place


def _checked(value: Any, where: str) -> NDArray[np.float32]:
    try:
        array = np.asarray(value)
    except ValueError:
        raise InputError(f"{where}: rows of different lengths; it should be C vectors of one length") from None
    if array.dtype.kind not in "iuf":
        raise InputError(f"{where}: should hold numbers, found {array.dtype}; names of classes are a list of texts")
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"{where}: should be of shape (C, D), C classes of D numbers each, found {array.shape}")
    with np.errstate(over="ignore"):
        embeddings = np.array(array, dtype=np.float32, order="C")
    odd = ~np.isfinite(embeddings).all(axis=1)
    if odd.any():
        raise InputError(
            f"{where}: row {int(np.flatnonzero(odd)[0]):,} holds NaN, infinity or a number beyond float32 "
            f"({int(odd.sum()):,} such rows); make the file again"
        )
    empty = ~embeddings.any(axis=1)
    if empty.any():
        row = int(np.flatnonzero(empty)[0])
        last = row == len(embeddings) - 1
        advice = "; if it is Detic's background, leave it out: that is added by itself" if last else ""
        raise InputError(f"{where}: row {row:,} is all zeros, which has no direction to compare with{advice}")
    embeddings.flags.writeable = False
    return embeddings


def _are_texts(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        # A column of a table of pandas holds texts as objects.
        texts = value.dtype.kind == "U" or (value.dtype.kind == "O" and all(isinstance(each, str) for each in value))
        return value.ndim == 1 and len(value) > 0 and texts
    return isinstance(value, Sequence) and bool(value) and all(isinstance(each, str) for each in value)
