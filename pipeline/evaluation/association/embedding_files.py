"""Reads precomputed embeddings from a file that names the box of each row.

Three layouts with the same four columns: `sequence` (text), `frame` and `id` (whole numbers, as in gt.txt) and
`embedding` (D numbers).

- Parquet: four columns, `embedding` a list of D numbers.
- `.npz`: four arrays, `embedding` of shape (N, D).
- `.npy`: one structured array with these four fields, `embedding` a field of shape (D,).

Rows may be in any order; rows of other sequences, frames and ids are ignored.
"""

from __future__ import annotations

import io
import math
import zipfile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from trackmill.pipeline.evaluation.association.sequences import BoxSequence
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.parquet.reading import ParquetData

ENDINGS = (".parquet", ".npz", ".npy")
COLUMNS = ("sequence", "frame", "id", "embedding")
MAX_BYTES = 32 << 30
"""Size limit of a file, and of the unpacked arrays of an archive."""

UNPACKED_FLOOR = 512 << 20
"""The arrays of an archive may have so many bytes, however small it is."""

UNPACKED_PER_BYTE = 16
"""They may also have so many for each byte of the archive: embeddings are hardly packed at all."""

_MAX_ARRAY_HEADER = 64 << 10


class EmbeddingFile:
    """The rows of one file.

    Args:
        url: ends in one of `ENDINGS`.

    Raises:
        BadTracks: the file has another format, a column is missing or of the wrong type, or embeddings differ in
            length.
        FileNotFoundError: there is no such file.
        OSError: the file cannot be read.
    """

    def __init__(self, url: str) -> None:
        self._where = redact(url)
        data = read_bytes(url, max_bytes=MAX_BYTES)
        try:
            columns = _parquet(data) if url.lower().endswith(".parquet") else _arrays(data)
        except BadTracks as error:
            raise BadTracks(f"{self._where}: {error}") from None
        except MemoryError:
            raise
        except Exception as error:  # a broken file may make these readers raise anything
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BadTracks(f"{self._where}: cannot be read as a file of embeddings: {reason[:200]}") from None
        self._sequences, self._frames, self._ids, self._vectors = (columns[name] for name in COLUMNS)
        self._check()

    def vectors(self, sequence: BoxSequence) -> NDArray[Any]:
        """(N, D) embeddings, one row for each box of a sequence.

        Raises:
            BadTracks: a box has no row, or two.
        """
        rows = np.flatnonzero(self._sequences == sequence.name)
        keys = np.concatenate(
            [
                np.column_stack([sequence.frames, sequence.ids]),
                np.column_stack([self._frames[rows], self._ids[rows]]).astype(np.int64),
            ]
        )
        known, code = np.unique(keys, axis=0, return_inverse=True)
        code = code.reshape(-1)
        wanted, given = code[: len(sequence)], code[len(sequence) :]
        twice = np.bincount(given, minlength=len(known))[wanted] > 1
        place = np.full(len(known), -1, np.int64)
        place[given] = rows
        chosen = place[wanted]
        for faulty, what in ((chosen < 0, "no embedding"), (twice, "more than one embedding")):
            if faulty.any():
                row, more = int(np.argmax(faulty)), int(faulty.sum()) - 1
                others = f" (and {more:,} more boxes)" if more else ""
                raise BadTracks(
                    f"{self._where}: {what} for sequence {sequence.name}, frame {sequence.frames[row]}, id "
                    f"{sequence.ids[row]}{others}; give one row for each box that the ground truth does not ignore"
                )
        return self._vectors[chosen]

    def _check(self) -> None:
        for name, column in (("frame", self._frames), ("id", self._ids)):
            if column.ndim != 1 or column.dtype.kind not in "iu":
                raise BadTracks(f"{self._where}: {name} should hold whole numbers, found {column.dtype} {column.shape}")
        if self._sequences.ndim != 1 or self._sequences.dtype.kind not in "UTO":
            raise BadTracks(f"{self._where}: sequence should hold text, found {self._sequences.dtype}")
        vectors = self._vectors
        if vectors.ndim != 2 or vectors.dtype.kind not in "fiu" or vectors.shape[1] == 0:
            raise BadTracks(
                f"{self._where}: embedding should be (rows, D) numbers, found {vectors.dtype} {vectors.shape}"
            )
        counts = [len(column) for column in (self._sequences, self._frames, self._ids, vectors)]
        if len(set(counts)) > 1:
            record = ", ".join(f"{name} {count:,}" for name, count in zip(COLUMNS, counts))
            raise BadTracks(f"{self._where}: columns of different lengths: {record}")


def _parquet(data: bytes) -> dict[str, NDArray[Any]]:
    file = ParquetData(data)
    _need(file.schema.names)
    kind = file.schema.field("embedding").type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise BadTracks(f"embedding should be a list of numbers, found {kind}")
    table = file.read(COLUMNS, row_bytes=64)
    for name in COLUMNS:
        if table[name].null_count:
            raise BadTracks(f"{name} is empty in {table[name].null_count:,} rows")
    text = table["sequence"].cast(pa.string())
    lists = table["embedding"].combine_chunks()
    lengths = np.unique(pyarrow.compute.list_value_length(lists).to_numpy(zero_copy_only=False))
    if len(lengths) > 1:
        raise BadTracks(f"embedding has {lengths[0]} numbers in some rows and {lengths[-1]} in others")
    values = lists.flatten()
    if values.null_count:
        raise BadTracks(f"embedding holds {values.null_count:,} empty values")
    size = int(lengths[0]) if len(lengths) else 1
    return {
        "sequence": np.asarray(text.to_pylist(), object),
        "frame": table["frame"].to_numpy(),
        "id": table["id"].to_numpy(),
        "embedding": values.to_numpy(zero_copy_only=False).reshape(-1, size),
    }


def _arrays(data: bytes) -> dict[str, NDArray[Any]]:
    if data[:2] != b"PK":
        _check_array_header(data[:_MAX_ARRAY_HEADER], len(data), "the array")
        table = np.load(io.BytesIO(data), allow_pickle=False)
        _need(table.dtype.names or ())
        return {name: table[name] for name in COLUMNS}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        _need(name.removesuffix(".npy") for name in archive.namelist())
        unpacked = {name: archive.getinfo(f"{name}.npy").file_size for name in COLUMNS}
        limit = max(UNPACKED_FLOOR, UNPACKED_PER_BYTE * len(data))
        if sum(unpacked.values()) > min(limit, MAX_BYTES):
            raise BadTracks(
                f"unpacks to {sum(unpacked.values()):,} bytes, more than an archive of {len(data):,} bytes may "
                f"({limit:,}, see UNPACKED_FLOOR and UNPACKED_PER_BYTE in pipeline/evaluation/association/"
                "embedding_files.py)"
            )
        for name, size in unpacked.items():
            with archive.open(f"{name}.npy") as member:
                _check_array_header(member.read(_MAX_ARRAY_HEADER), size, name)
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in COLUMNS}


def _check_array_header(begin: bytes, size: int, what: str) -> None:
    """Refuse an array that says it is larger than the bytes that it has: NumPy would make room for it first.

    Raises:
        BadTracks: it holds Python objects.
        ValueError: it is larger, or its header is damaged.
    """
    stream = io.BytesIO(begin)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream, max_header_size=_MAX_ARRAY_HEADER)
    except (ValueError, RecursionError, MemoryError):  # whose words are those of a parser of Python
        raise ValueError(f"{what} has a damaged header") from None
    if dtype.hasobject:
        raise BadTracks(f"{what} holds Python objects, which are not read; save texts and numbers")
    if math.prod(map(int, shape)) * dtype.itemsize > size:
        raise ValueError(f"{what} says that its shape is {shape} of {dtype}, but it has {size:,} bytes")


def _need(names: Any) -> None:
    names = list(names)
    missing = [name for name in COLUMNS if name not in set(names)]
    if missing:
        raise BadTracks(
            f"holds no {', '.join(missing)}; needed are sequence, frame, id and embedding (found: "
            f"{', '.join(map(str, list(names)[:12])) or 'none of them'})"
        )
