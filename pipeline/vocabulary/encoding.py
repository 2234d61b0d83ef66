"""Names of classes into vectors, by CLIP's text tower; the result is kept, so that the same names are encoded once.

A vocabulary lies in `$TRACKMILL_CACHE/vocabularies` (or `~/.cache/trackmill/vocabularies`) under the SHA-256 of what it
follows from: the names, the prompt, and the SHA-256 of CLIP's weights. Processes that encode the same at the same time
write the same file, and each rename puts a whole one there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trackmill.models.clip import load, tokenize
from trackmill.models.detic.vocabulary import Vocabulary
from trackmill.models.weights.read import read_checkpoint
from trackmill.pipeline.storage.credentials import error_text
from trackmill.pipeline.storage.fetched import Weights, cache_folder, fetch_published, fetch_weights
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.storage.urls import is_local
from trackmill.pipeline.vocabulary.arrays import MAX_VECTOR_BYTES, vocabulary_bytes, vocabulary_from_bytes
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    import torch

    from trackmill.models.clip.text_tower import TextTower

_log = logging.getLogger(__name__)

TEXT_WEIGHTS_URL = (
    "https://openaipublic.azureedge.net/clip/models/"
    "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt"
)
"""OpenAI's CLIP ViT-B/32 (MIT), by which Detic was trained; the SHA-256 of the file stands in its address."""

TextWeights: TypeAlias = "str | os.PathLike[str] | Mapping[str, torch.Tensor] | None"
"""Where CLIP's weights are, or the weights themselves by name."""

PROMPT = "a {}"
"""Detic's: no templates, no "an"."""

_ENCODER = 1
"""Raised whenever the same names and weights give other vectors."""

_BATCH = 256
_SHA256_IN_URL = re.compile(r"/([0-9a-f]{64})/[^/?]+$")


def encode_names(names: Sequence[str], text_weights: TextWeights = None) -> Vocabulary:
    """The vocabulary of these names: CLIP's vector of "a " and each, float32, not normalised.

    Args:
        names: of the classes, as `check_names` takes them.
        text_weights: see `read_vocabulary`.

    Raises:
        InputError: a name that CLIP cannot read, or weights that are none of CLIP's.
        OSError: the weights could not be found or fetched.
        MissingPackage: the tokenizer is not installed; says what to type.
    """
    if isinstance(text_weights, Mapping):
        return Vocabulary(_encode(_tokens(names), load(text_weights)), tuple(names))
    weights = os.fspath(text_weights or TEXT_WEIGHTS_URL)
    promised = None if is_local(weights) else _SHA256_IN_URL.search(weights)
    fetched: Weights | None = None
    # The sum of a published file is known before the file is here, and so is what was made by it.
    sha256 = promised[1] if promised else ""
    if not sha256:
        fetched = fetch_weights(weights)
        sha256 = fetched.sha256
    recipe = json.dumps({"encoder": _ENCODER, "prompt": PROMPT, "text_weights": sha256}, sort_keys=True)
    wanted = json.dumps([recipe, list(names)])
    path = _cached(hashlib.sha256(wanted.encode()).hexdigest()[:32])
    known = _read(path, tuple(names), recipe)
    if known is not None:
        return known
    # What is wrong with a name, or missing here, is said before 350 MB are fetched and read.
    tokens = _tokens(names)
    fetched = fetched or fetch_published(weights, sha256)
    tower = load(read_checkpoint(fetched.path, where=fetched.where, verified=True))
    vocabulary = Vocabulary(_encode(tokens, tower, fetched.where), tuple(names)).made_by(recipe)
    _write(path, vocabulary)
    return vocabulary


def _tokens(names: Sequence[str]) -> torch.Tensor:
    """(N, T) tokens of the prompts."""
    tokens = tokenize([PROMPT.format(name) for name in names])
    _tell_of_twins(names, tokens)
    return tokens


def _encode(tokens: torch.Tensor, tower: TextTower, where: str = "the text weights") -> NDArray[np.float32]:
    """(N, T) tokens -> (N, E) vectors, on the CPU in float32."""
    import torch

    sizes, ends = tower.sizes, tokens.argmax(-1)
    last = int(ends.max())
    if int(tokens.max()) >= sizes.vocabulary or last >= sizes.context:
        raise InputError(
            f"{where}: knows {sizes.vocabulary:,} tokens and reads {sizes.context} of them; CLIP's tokenizer "
            f"gives numbers up to {int(tokens.max()):,}, here {last + 1} of them: take weights of CLIP"
        )
    # Names of one length together: the tower computes as many places as the longest of a batch has.
    order = ends.argsort(stable=True)
    encoded = torch.empty(len(tokens), sizes.embedding)
    with torch.inference_mode():
        for rows in order.split(_BATCH):
            encoded[rows] = tower(tokens[rows])
    vectors: NDArray[np.float32] = encoded.numpy()
    return vectors


def _tell_of_twins(names: Sequence[str], tokens: torch.Tensor) -> None:
    """Say that two names are one text to CLIP, as those are that differ in capitals alone."""
    first: dict[bytes, str] = {}
    for name, row in zip(names, tokens.numpy(), strict=True):
        other = first.setdefault(row.tobytes(), name)
        if other != name:
            _log.warning(
                "classes: CLIP reads %r and %r as one text: each of their boxes is found under both names", other, name
            )


def _cached(key: str) -> Path | None:
    try:
        return cache_folder("vocabularies") / f"{key}.npz"
    except OSError as error:
        _log.warning("vocabularies are encoded anew each time: %s", error_text(error))
        return None


def _read(path: Path | None, names: tuple[str, ...], recipe: str) -> Vocabulary | None:
    """What lies in the cache; None where there is nothing, or something else than what was written."""
    if path is None:
        return None
    try:
        found = vocabulary_from_bytes(read_bytes(str(path), max_bytes=MAX_VECTOR_BYTES), str(path))
    except (OSError, InputError):
        return None
    if found.names != names or found.recipe != recipe:
        return None
    return dataclasses.replace(found, where="the vocabulary")  # whoever gave names knows nothing of this file


def _write(path: Path | None, vocabulary: Vocabulary) -> None:
    if path is None:
        return
    try:
        publish_bytes(str(path), vocabulary_bytes(vocabulary))
    except OSError as error:  # a full disk must not keep anybody from the result
        _log.warning("the vocabulary is not kept for the next time: %s", error_text(error))
