"""The sources of embeddings: a function of pixels, a file, a table in memory, or a built-in one."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackmill.models.embedders.base import Embedder
from trackmill.pipeline.evaluation.association.built_in import hsv_histogram, identity_vectors, random_vectors
from trackmill.pipeline.evaluation.association.embedding_files import ENDINGS, EmbeddingFile
from trackmill.pipeline.evaluation.association.sequences import BoxSequence
from trackmill.pipeline.evaluation.metrics.retrieval import unit_length
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.storage.credentials import redact

PixelEmbedding = Callable[[NDArray[np.uint8], NDArray[np.float32]], Any]
"""(image (H, W, 3) uint8 RGB, boxes (N, 4) float32 `xyxy`, as annotated: they may reach beyond the image) -> (N, D)."""

BUILT_IN = ("hsv", "random", "identity")

_CALLABLE = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """One embedding; exactly one of the three sources is not None.

    Args:
        name: the name the user gave.
        of_pixels: a function of a picture and the boxes in it.
        of_sequence: returns all vectors of a sequence, (N, D), without reading pixels.
        embedder: remembers earlier frames, so it is reset for each sequence and then gets every frame of it in order,
            as a tracker would give it: see `BoxSequence.fed_frames`.
    """

    name: str
    of_pixels: PixelEmbedding | None = None
    of_sequence: Callable[[BoxSequence], Any] | None = None
    embedder: Embedder | None = None

    @property
    def looks(self) -> bool:
        """Whether it needs pictures."""
        return self.of_sequence is None

    def fed(self, sequence: BoxSequence) -> list[int]:
        """Numbers of the frames that it gets, ascending."""
        if self.embedder is not None:
            return sequence.fed_frames()
        return np.unique(sequence.frames).tolist() if self.looks else []


def named_embedding(spec: str, seed: int = 0) -> Embedding:
    """The embedding that `--embeddings` selects.

    Args:
        spec: `hsv`, `random` or `identity`; a file that ends in .parquet, .npz or .npy (layout: `embedding_files`); or
            `package.module:name` of a function (image, boxes) -> vectors, or of a class or function without arguments
            that returns one. Only that module is imported.
        seed: seed of `random` and `identity`.

    Raises:
        BadTracks: `spec` is none of these, or cannot be imported or read.
    """
    if spec == "hsv":
        return Embedding(name=spec, of_pixels=hsv_histogram)
    if spec in BUILT_IN:
        vectors = random_vectors if spec == "random" else identity_vectors
        return Embedding(name=spec, of_sequence=partial(vectors, seed=seed))
    if spec.lower().endswith(ENDINGS):
        return Embedding(name=redact(spec), of_sequence=EmbeddingFile(spec).vectors)
    if _CALLABLE.match(spec):
        return Embedding(name=spec, of_pixels=_import(spec))
    raise BadTracks(
        f"{redact(spec)}: not an embedding; give {', '.join(BUILT_IN)}, a file ending in {', '.join(ENDINGS)}, or "
        "package.module:function"
    )


def given_embedding(
    embedding: PixelEmbedding | Mapping[str, Any] | Embedding | Embedder | str, seed: int = 0
) -> Embedding:
    """The `Embedding` for what a Python caller passes.

    Args:
        embedding: a function of (image, boxes); an embedder, which may remember earlier frames; a table from sequence
            name to (N, D) vectors in the order of the sequence's boxes; or what `named_embedding` takes or returns.
        seed: seed of `random` and `identity`.
    """
    if isinstance(embedding, Embedding):
        return embedding
    if isinstance(embedding, str):
        return named_embedding(embedding, seed)
    if isinstance(embedding, Embedder):
        return Embedding(name=type(embedding).__name__, embedder=embedding)
    if isinstance(embedding, Mapping):
        return Embedding(name="given vectors", of_sequence=partial(_look_up, embedding))
    return Embedding(name=getattr(embedding, "__name__", type(embedding).__name__), of_pixels=embedding)


def embed(
    sequences: Sequence[BoxSequence], embeddings: Sequence[Embedding], progress: Callable[[int], None] | None = None
) -> list[dict[str, NDArray[np.float32]]]:
    """Compute the vectors of every box; each frame is read and embedded once.

    Args:
        sequences: need `pictures` if an embedding uses pixels.
        embeddings: one or more; a picture is decoded once for all of them.
        progress: called with 1 after each frame.

    Returns:
        For each embedding: by sequence name, (N, D) float32 of unit length (zeros stay zeros).

    Raises:
        BadTracks: there are no pictures, a function failed, or vectors have the wrong shape or are not finite; the
            message names embedding, sequence and frame.
    """
    of_pixels = [embedding for embedding in embeddings if embedding.looks]
    by_embedding: list[dict[str, NDArray[np.float32]]] = [{} for _ in embeddings]
    for sequence in sequences:
        seen = _look(sequence, of_pixels, progress) if of_pixels and len(sequence) else {}
        for embedding, known in zip(embeddings, by_embedding):
            if embedding.of_sequence is not None:
                where = f"embedding {embedding.name}: sequence {sequence.name}"
                vectors = checked(embedding.of_sequence(sequence), sequence, where)
            else:
                vectors = seen.get(id(embedding), np.zeros((0, 1), np.float32))
            known[sequence.name] = unit_length(vectors)
    return by_embedding


def num_frames(sequences: Sequence[BoxSequence], embeddings: Sequence[Embedding]) -> int:
    """Number of pictures that `embed` reads."""
    return sum(len(_read_frames(sequence, embeddings)) for sequence in sequences)


def _read_frames(sequence: BoxSequence, embeddings: Sequence[Embedding]) -> list[int]:
    """Numbers of the frames that any of the embeddings gets, ascending."""
    return sorted({number for embedding in embeddings for number in embedding.fed(sequence)})


def checked(vectors: Any, rows: BoxSequence, where: str) -> NDArray[np.float32]:
    """Check the vectors of all boxes of a sequence, and convert them to (N, D) float32.

    Raises:
        BadTracks: they have the wrong shape, or are not finite.
    """
    array = _as_array(vectors, len(rows), where)
    odd = ~np.isfinite(array).all(axis=1)
    if odd.any():
        row = int(np.argmax(odd))
        raise BadTracks(f"{where}, frame {rows.frames[row]}, id {rows.ids[row]}: the embedding is not finite")
    return array


def _as_array(vectors: Any, count: int, where: str) -> NDArray[np.float32]:
    if hasattr(vectors, "detach"):  # a PyTorch tensor, wherever it lives
        vectors = vectors.detach().cpu()
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(vectors, np.float32)
    except (TypeError, ValueError) as error:
        raise BadTracks(f"{where}: embeddings are not an array of numbers: {error}") from None
    if array.ndim != 2 or len(array) != count or array.shape[1] == 0:
        raise BadTracks(f"{where}: embeddings of shape {array.shape} for {count} boxes, should be ({count}, D)")
    return array


def _look(
    sequence: BoxSequence, embeddings: Sequence[Embedding], progress: Callable[[int], None] | None
) -> dict[int, NDArray[np.float32]]:
    """Vectors of one sequence by `id` of the embedding; one picture is in memory at a time."""
    read = _read_frames(sequence, embeddings)
    starts, ends = (np.searchsorted(sequence.frames, read, side=side).tolist() for side in ("left", "right"))
    by_id: dict[int, NDArray[np.float32]] = {}
    for embedding in embeddings:
        if embedding.embedder is not None:
            embedding.embedder.reset()
    for place, image in enumerate(_pictures(sequence, read)):
        rows = slice(starts[place], ends[place])
        for embedding in embeddings:
            if rows.start == rows.stop and embedding.embedder is None:
                continue  # read for another one, which remembers it
            where = f"embedding {embedding.name}: sequence {sequence.name}, frame {read[place]}"
            try:
                output = _output(embedding, image, sequence.boxes[rows].astype(np.float32))
            except Exception as error:
                reason = " ".join(str(error).split())
                raise BadTracks(f"{where}: it failed with {type(error).__name__}: {reason}") from error
            if rows.start == rows.stop:
                continue
            vectors = _as_array(output, rows.stop - rows.start, where)
            whole = by_id.setdefault(id(embedding), np.empty((len(sequence), vectors.shape[1]), np.float32))
            if vectors.shape[1] != whole.shape[1]:
                raise BadTracks(f"{where}: vectors of length {vectors.shape[1]}, before it was {whole.shape[1]}")
            whole[rows] = vectors
        if progress is not None:
            progress(1)
    return {
        id(embedding): checked(by_id[id(embedding)], sequence, f"embedding {embedding.name}: sequence {sequence.name}")
        for embedding in embeddings
    }


def _output(embedding: Embedding, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> Any:
    if embedding.embedder is not None:
        return embedding.embedder.embed([image], [boxes])[0]
    assert embedding.of_pixels is not None
    return embedding.of_pixels(image, boxes)


def _pictures(sequence: BoxSequence, wanted: list[int]) -> Any:
    where = f"sequence {sequence.name}"
    if sequence.pictures is None:
        raise BadTracks(f"{where}: this embedding looks at pixels, and the sequence has no pictures")
    if isinstance(sequence.pictures, Mapping):
        missing = [number for number in wanted if number not in sequence.pictures]
        if missing:
            raise BadTracks(f"{where}: no picture of frame {missing[0]}")
        images: Any = (sequence.pictures[number] for number in wanted)
    else:
        images = sequence.pictures(wanted)
    count = 0
    for count, image in enumerate(images, start=1):
        if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise BadTracks(f"{where}: the picture of frame {wanted[count - 1]} should be (H, W, 3) uint8 RGB")
        yield image
        if count == len(wanted):
            return
    raise BadTracks(f"{where}: pictures end before frame {wanted[count]}")


def _look_up(table: Mapping[str, Any], sequence: BoxSequence) -> Any:
    if sequence.name not in table:
        raise BadTracks(f"no vectors for sequence {sequence.name}; there are: {', '.join(map(str, list(table)[:8]))}")
    return table[sequence.name]


def _import(spec: str) -> PixelEmbedding:
    module, _, path = spec.partition(":")
    if os.getcwd() not in sys.path:
        # Appended last, so that a file in the working directory never hides an installed package.
        sys.path.append(os.getcwd())
    try:
        target: Any = importlib.import_module(module)
        for part in path.split("."):
            target = getattr(target, part)
        if inspect.isclass(target) or not _takes_two(target):
            target = target()
    except Exception as error:
        reason = " ".join(str(error).split())
        raise BadTracks(f"embedding {spec}: cannot be had: {type(error).__name__}: {reason}") from error
    if not callable(target):
        raise BadTracks(f"embedding {spec}: is a {type(target).__name__}, which cannot be called with (image, boxes)")
    return target  # type: ignore[no-any-return]


def _takes_two(function: Any) -> bool:
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # written in C, without a signature
        return True
    return True
