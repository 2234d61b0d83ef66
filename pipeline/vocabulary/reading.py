"""From what `--classes` says to a vocabulary, and from a vocabulary to a file."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from trackmill.models.detic.lvis_names import LVIS_NAMES
from trackmill.models.detic.vocabulary import Vocabulary
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.fetched import fetch_published
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.storage.urls import is_local
from trackmill.pipeline.vocabulary.arrays import (
    MAX_VECTOR_BYTES,
    names_from_bytes,
    vocabulary_bytes,
    vocabulary_from_bytes,
)
from trackmill.pipeline.vocabulary.classes import VECTOR_SUFFIXES, Kind, kind_of
from trackmill.pipeline.vocabulary.encoding import TextWeights, encode_names
from trackmill.pipeline.vocabulary.files import beside, read_file, suffix_of
from trackmill.pipeline.vocabulary.names import names_of_file, names_of_list, names_of_text
from trackmill.schemas.errors import InputError

_log = logging.getLogger(__name__)

LVIS_URL = "https://raw.githubusercontent.com/facebookresearch/Detic/main/datasets/metadata/lvis_v1_clip_a+cname.npy"
"""Detic's own vectors of LVIS v1 (Apache-2.0): CLIP ViT-B/32 in half precision, of "a " and the name."""

LVIS_SHA256 = "16059f1fe5f7d857273d16a1b7c6d6141a88d133e99a107be5065f42311da0f8"


def read_vocabulary(classes: str | os.PathLike[str] | Sequence[str], text_weights: TextWeights = None) -> Vocabulary:
    """The vocabulary that `classes` says.

    Args:
        classes: names, as a list or with commas between (`person,traffic light`); a text file with a name a line
            (`.txt`, `.names`, or any path or URL); vectors as `.npy` or `.npz`, path or URL, with names inside or in a
            `.txt` beside it; or `lvis`, Detic's own vectors of LVIS v1's 1203 classes. See
            `trackmill.pipeline.vocabulary.classes.kind_of`.
        text_weights: path, URL or `hf://` of CLIP's weights, which turn names into vectors; None or "": OpenAI's
            ViT-B/32, as Detic's. Tensors by name are taken too, and their vectors not kept for the next time. Of no use
            where vectors are given.

    Raises:
        InputError: names, files or weights that are not what they should be; the text names them.
        OSError: a file could not be found, fetched or read; says where one without a network puts it.
        MissingPackage: names need CLIP's tokenizer; says what to type.
    """
    if not isinstance(classes, str | os.PathLike):
        return encode_names(names_of_list(classes), text_weights)
    text, kind = _looked_at(classes)
    if kind in (Kind.LVIS, Kind.VECTOR_FILE) and text_weights:
        _log.warning("text weights are of no use: %s holds vectors, and no name is encoded", redact(text))
    if kind is Kind.LVIS:
        fetched = fetch_published(LVIS_URL, LVIS_SHA256)
        return vocabulary_from_bytes(read_file(str(fetched.path), MAX_VECTOR_BYTES), "lvis", LVIS_NAMES)
    if kind is Kind.VECTOR_FILE:
        return _read_vectors(text)
    return encode_names(_names(text, kind), text_weights)


def read_class_names(classes: str | os.PathLike[str] | Sequence[str]) -> tuple[str, ...]:
    """The names that `classes` says, without their vectors; see `read_vocabulary`.

    Raises:
        InputError, OSError: as there; a file of vectors without names too.
    """
    if not isinstance(classes, str | os.PathLike):
        return names_of_list(classes)
    text, kind = _looked_at(classes)
    if kind is Kind.LVIS:
        return LVIS_NAMES
    if kind is not Kind.VECTOR_FILE:
        return _names(text, kind)
    names = _names_beside(text)
    return names_from_bytes(read_file(text, MAX_VECTOR_BYTES), redact(text)) if names is None else names


def write_vocabulary(vocabulary: Vocabulary, url: str) -> None:
    """Write a vocabulary as an `.npz`, whole or not at all: vectors, names, and how they were made.

    Raises:
        InputError: the name ends otherwise, or nothing can be written there.
        OSError: it could not be written.
    """
    if suffix_of(url) != ".npz":
        raise InputError(f"{redact(url)}: a vocabulary is written as .npz; give a name that ends so")
    publish_bytes(url, vocabulary_bytes(vocabulary))


def _looked_at(classes: str | os.PathLike[str]) -> tuple[str, Kind]:
    text = os.fspath(classes)
    if isinstance(classes, str):
        return text, kind_of(text)
    return text, Kind.VECTOR_FILE if suffix_of(text) in VECTOR_SUFFIXES else Kind.NAME_FILE  # a path is a file


def _names(text: str, kind: Kind) -> tuple[str, ...]:
    return names_of_text(text) if kind is Kind.NAMES else names_of_file(text)


def _read_vectors(url: str) -> Vocabulary:
    data = read_file(url, MAX_VECTOR_BYTES)
    inside = vocabulary_from_bytes(data, redact(url))
    if inside.is_named:
        return inside
    names = _names_beside(url)
    return inside if names is None else vocabulary_from_bytes(data, redact(url), names)


def _names_beside(url: str) -> tuple[str, ...] | None:
    """The names in `classes.txt` beside `classes.npy`; None where there is none."""
    text = beside(url, ".txt")
    if not text:
        return None
    try:
        return names_of_file(text)
    except FileNotFoundError:
        return None
    except PermissionError:
        if is_local(text):
            raise
        return None  # what a store says of files that are not there, if it may not be listed
