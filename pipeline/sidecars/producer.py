"""The contract of a producer: one sample in, the rows of its sidecar out.

A producer knows nothing of files, units or workers. It is deterministic: the same sample gives the same rows, whenever
and wherever it is asked. It gets the sample as the shard stores it, JPEG and all, so that a sidecar made while mining
is the same as one made a year later.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.sidecars.columns import Column
from trackmill.schemas.boxes import Boxes
from trackmill.schemas.config import Settings
from trackmill.schemas.errors import JobError

Rows = Mapping[str, Any]
"""`frame`, (N,) whole numbers that never decrease, and one array of N values (a box: four) for each own column."""


class CountedRows(dict[str, Any]):
    """Rows of a sample, and counts that a producer keeps of its work there, such as what it left out and why.

    They are summed into each part's own metadata. Two names have a meaning that `--verify` tests: `kept` is the number
    of rows, `frames` that of the sample's frames.

    Args:
        rows: see `Rows`.
        counts: whole numbers from 0, by name.
    """

    def __init__(self, rows: Rows, counts: Mapping[str, int]) -> None:
        super().__init__(rows)
        self.counts = dict(counts)


_TOLERANCE = 0.01
"""Pixels by which a box may leave its frame: boxes are stored to a hundredth of a pixel."""
_KINDS = {"bool": "b", "int32": "iu", "int64": "iu", "float32": "fiu", "float64": "fiu", "box": "fiu"}


class BadRows(JobError):
    """A producer broke its contract; the text names producer, sample and column. No sample is to blame."""


class Producer(ABC):
    """Makes the rows of a sidecar.

    Args:
        config: its settings, as `resolve` returned them.
    """

    name: str
    """What `--sidecar` calls it, and the folder of its sidecar unless another is named."""

    version: int
    """Raised whenever the same sample may give other rows; part of the fingerprint."""

    columns: tuple[Column, ...]
    """Its own columns; `key` and `frame` stand before them in every sidecar."""

    uses_gpu: bool = False
    """Whether it gains from a GPU; a pool then gives each worker one."""

    not_in_fingerprint: frozenset[str] = frozenset()
    """Settings that change no row, such as the place of a checkpoint, the device or the batch size."""

    left_out_at_default: frozenset[str] = frozenset()
    """Settings that came after sidecars had been made without them: where one has its default, it is not part of the
    fingerprint nor of `sidecar.json`, and those sidecars go on."""

    Config: type[Settings] = Settings

    @abstractmethod
    def __init__(self, config: Any) -> None: ...

    @abstractmethod
    def rows(self, sample: Sample) -> Rows:
        """The rows of a sample, frame after frame.

        Args:
            sample: record, masks and JPEGs as they are stored; its `shard` and `offset` are for messages only.

        Returns:
            See `Rows`, or `CountedRows`. A frame without rows is fine, and so is a sample without any.

        Raises:
            Exception: the sample cannot be used; it is quarantined in this sidecar, with the error as its reason.
        """

    def rows_beside(self, sample: Sample, others: Mapping[str, Rows]) -> Rows:
        """As `rows`, of a producer that reads other sidecars.

        Args:
            sample: see `rows`.
            others: the sample's rows in each sidecar that `reads` names, as arrays.
        """
        return self.rows(sample)

    @classmethod
    def reads(cls, config: Any) -> tuple[str, ...]:
        """Names of other sidecars of the same data set whose rows it needs.

        Their fingerprints are part of its own, and each of their parts must be there before its part is made.
        """
        return ()

    @classmethod
    def resolve(cls, config: Any) -> Any:
        """Replace every choice that depends on this machine by what it comes to, once, before workers start.

        Raises:
            InputError, OSError, MissingPackage: these settings cannot work here; says what to do.
        """
        return config

    @classmethod
    def gains_from_gpu(cls, config: Any) -> bool:
        """Whether a GPU helps with these settings; `uses_gpu` where they do not matter."""
        return cls.uses_gpu

    @classmethod
    def shared_files(cls, config: Any, stored: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Files that must be the same bytes on every worker although machines would make them a little different.

        Called once, on the driver. They lie in the sidecar's folder, their SHA-256 are part of its fingerprint, and
        workers get them by `build`.

        Args:
            config: as `resolve` returned it.
            stored: those of this sidecar if it was begun before; give back what still fits, since this machine need
                not make the same.

        Returns:
            Bytes by file name, such as `vocabulary.npz`.
        """
        return {}

    @classmethod
    def build(cls, config: Any, files: Mapping[str, bytes]) -> Producer:
        """A producer on the machine that runs it.

        Args:
            config: as `resolve` returned it.
            files: as `shared_files` gave them.
        """
        return cls(config)

    @classmethod
    def wrong_rows(cls, config: Any, rows: Rows, objects: Sequence[Boxes | None]) -> Iterator[str]:
        """What is wrong with rows that lie there, beyond what their columns declare; for `--verify`.

        Args:
            config: with which they were made.
            rows: of one sample, see `Rows`.
            objects: of each of its frames the boxes (G, 4) of its annotated objects; None where nothing is known.
        """
        return iter(())

    @classmethod
    def implementation(cls, config: Any) -> dict[str, str]:
        """What besides the settings decides the rows (library and version, SHA-256 of weights), by name.

        Args:
            config: as `resolve` returned it.
        """
        return {}


def check_counts(producer: str, sample: Sample, rows: Rows) -> dict[str, int]:
    """The counts that came with the rows of a sample; none where none did.

    Raises:
        BadRows: one of them is no whole number from 0.
    """
    counts: Mapping[str, Any] = getattr(rows, "counts", {})
    for name, count in counts.items():
        if not isinstance(name, str) or isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise BadRows(f"{producer}: {sample.key}: count {name!r} should be a whole number from 0, found {count!r}")
    return dict(counts)


def check_rows(producer: str, columns: tuple[Column, ...], sample: Sample, rows: Rows) -> dict[str, Any]:
    """The rows of a sample as arrays of the declared types.

    Args:
        producer: its name, for messages.
        columns: its own.
        sample: what the rows are about.
        rows: what the producer returned.

    Returns:
        `frame` (N,) int32 and the own columns in their order: (N,) arrays, (N, 4) for boxes, lists of N `str`.

    Raises:
        BadRows: a column is missing, unknown, of another type or length, a number is not finite, a frame is out of
            order or not there, or a box leaves its frame.
    """
    where = f"{producer}: {sample.key}"
    expected = ["frame", *(column.name for column in columns)]
    if set(rows) != set(expected):
        wrong = sorted(set(expected) ^ set(rows))
        raise BadRows(f"{where}: columns {', '.join(map(repr, wrong))} are missing or not declared")
    frames = np.asarray(rows["frame"])
    frames = frames if frames.size else np.zeros(0, np.int32)
    count, num_frames = len(frames), len(sample.record.frames)
    if frames.ndim != 1 or frames.dtype.kind not in "iu":
        raise BadRows(f"{where}: 'frame' should be (N,) whole numbers, found {frames.dtype} of shape {frames.shape}")
    if count and (frames[0] < 0 or frames[-1] >= num_frames or (np.diff(frames.astype(np.int64)) < 0).any()):
        raise BadRows(
            f"{where}: 'frame' should rise from 0 to {num_frames - 1} and may repeat, found {frames.tolist()[:20]}"
        )
    checked: dict[str, Any] = {"frame": frames.astype(np.int32)}
    for column in columns:
        values = _text(where, column, rows[column.name]) if column.dtype == "string" else None
        checked[column.name] = _numbers(where, column, rows[column.name], count) if values is None else values
        if len(checked[column.name]) != count:
            raise BadRows(f"{where}: {column.name!r} has {len(checked[column.name])} values for {count} rows")
        if column.dtype == "box" and (bad := bad_boxes(checked[column.name], _height(sample), _width(sample))).any():
            row = int(np.flatnonzero(bad)[0])
            raise BadRows(
                f"{where}: {column.name!r}: row {row} is {checked[column.name][row].tolist()}, which has no area or "
                f"leaves its frame of {_height(sample)} x {_width(sample)}"
            )
    return checked


def bad_boxes(boxes: NDArray[np.float32], height: int, width: int) -> NDArray[np.bool_]:
    """(N,) whether each box (N, 4) leaves a frame of `height` x `width` pixels or has no area; NaN counts as bad."""
    x0, y0, x1, y1 = np.asarray(boxes, np.float64).reshape(-1, 4).T
    inside = (x0 >= -_TOLERANCE) & (y0 >= -_TOLERANCE) & (x1 <= width + _TOLERANCE) & (y1 <= height + _TOLERANCE)
    return ~(inside & (x1 > x0) & (y1 > y0))


def _text(where: str, column: Column, values: Any) -> list[str]:
    texts = list(values)
    if not all(isinstance(text, str) for text in texts):
        raise BadRows(f"{where}: {column.name!r} should hold text")
    return [str(text) for text in texts]


def _numbers(where: str, column: Column, values: Any, count: int) -> NDArray[Any]:
    array = np.asarray(values)
    shape = (count, 4) if column.dtype == "box" else (count,)
    dtype = np.dtype("float32" if column.dtype == "box" else column.dtype)
    if not array.size and not count:
        return np.zeros(shape, dtype)
    if array.shape != shape or array.dtype.kind not in _KINDS[column.dtype]:
        raise BadRows(
            f"{where}: {column.name!r} should be {dtype} of shape {shape}, found {array.dtype} of shape {array.shape}"
        )
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(array.astype(dtype))
    if dtype.kind == "f" and not np.isfinite(stored).all():
        raise BadRows(f"{where}: {column.name!r} holds a number that is not finite in {dtype}")
    if dtype.kind == "i" and (stored != array).any():
        raise BadRows(f"{where}: {column.name!r} holds a number beyond {dtype}")
    return stored


def _height(sample: Sample) -> int:
    return sample.record.stored.height


def _width(sample: Sample) -> int:
    return sample.record.stored.width
