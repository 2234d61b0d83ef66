"""What every format gets, sample by sample, and what it writes through: files as they come, long lists on disk."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, ClassVar, Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from trackmill.pipeline.storage.publish import publish_bytes, publish_file
from trackmill.pipeline.storage.scratch import scratch_file
from trackmill.pipeline.storage.urls import join
from trackmill.schemas.masks import CroppedMask

MaskForm = Literal["rle", "polygon"]
ONE_CLASS = "object"
"""Class of all boxes that have none: shards hold no classes."""

_THREADS = 8
_WAITING = 64
"""Files that are on their way."""


@dataclass(slots=True, kw_only=True)
class ExportFrame:
    """One frame with the boxes that were asked for.

    Args:
        name: file name without its ending, unique in the data set.
        jpeg: bytes as stored.
        boxes: (N, 4) float64 `xyxy` in pixels of the frame.
        ids: (N,) identities, constant over the frames of a clip; None: there are none.
        scores: (N,); None: there are none.
        labels: (N,) class of each.
        masks: (N,) mask of each; None: not asked for, or there are none.
        index: frame number in the source video; 0 for a picture.
    """

    name: str
    jpeg: bytes
    boxes: NDArray[np.float64]
    ids: Sequence[int] | None
    scores: Sequence[float] | None
    labels: Sequence[str]
    masks: Sequence[CroppedMask | None] | None
    index: int = 0


@dataclass(slots=True, kw_only=True)
class ExportSample:
    """A picture or a clip.

    Args:
        key: of the sample.
        clip: whether it is one.
        height, width: of its frames.
        fps: stored frames a second; None for a picture.
        license: as the data set states it.
        frames: those of which something is known.
    """

    key: str
    clip: bool
    height: int
    width: int
    fps: float | None
    license: str
    frames: list[ExportFrame]


class Target:
    """Where a format writes: a folder of any store, and the name of the part, such as train.

    Leave the `with` block to wait until all files are there.
    """

    def __init__(self, root: str, part: str) -> None:
        self.root, self.part = root, part
        self._pool = ThreadPoolExecutor(_THREADS, "export")
        self._waiting: deque[Future[None]] = deque()

    def put(self, path: str, data: bytes) -> None:
        """Write a file, some time before the block ends.

        Raises:
            OSError: an earlier one could not be written.
        """
        self._waiting.append(self._pool.submit(publish_bytes, join(self.root, path), data))
        while len(self._waiting) > _WAITING:
            self._waiting.popleft().result()

    def __enter__(self) -> Target:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for future in self._waiting:
                future.result()


@dataclass
class Numbers:
    """Numbers from 1 for names, in the order in which they are met."""

    of: dict[str, int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> int:
        return self.of.setdefault(name, len(self.of) + 1)


class Writer(ABC):
    """Writes a data set in one format.

    Args:
        target: where.
        masks: how masks are written; None: they are not.
        classes: numbers of those that other parts in the same folder have, to be gone on with.
    """

    identities: ClassVar[bool] = False
    """Whether boxes need identities."""
    clips_only: ClassVar[bool] = False
    """Whether it holds videos: pictures are left out then."""
    mask_forms: ClassVar[tuple[MaskForm, ...]] = ()
    """How it can hold masks; the first is what `auto` takes."""
    masks_by_themselves: ClassVar[bool] = True
    """Whether masks are written unless somebody says no."""

    def __init__(self, target: Target, masks: MaskForm | None, classes: Numbers) -> None:
        self.target, self.masks, self.classes = target, masks, classes
        self.counts: Counter[str] = Counter()

    @abstractmethod
    def add(self, sample: ExportSample) -> None:
        """Write one sample."""

    @abstractmethod
    def finish(self) -> None:
        """Write what can only be known at the end."""

    def close(self) -> None:  # noqa: B027 - most formats collect nothing
        """Remove what was collected on disk; called however it ends."""


class JsonFile:
    """A JSON object with long lists that are collected on disk, so that millions of rows need no memory.

    Args:
        url: of the file.
        lists: their names.
    """

    def __init__(self, url: str, lists: Sequence[str]) -> None:
        self._url = url
        self._paths: dict[str, Path] = {name: scratch_file(url) for name in lists}
        self._handles: dict[str, IO[bytes]] = {}
        self._some: set[str] = set()
        for name, path in self._paths.items():
            self._handles[name] = open(path, "wb", buffering=1 << 20)  # noqa: SIM115 - closed by `close`

    def add(self, name: str, row: Any) -> None:
        """A row more in a list."""
        handle = self._handles[name]
        handle.write(b",\n" if name in self._some else b"\n")
        handle.write(orjson.dumps(row))
        self._some.add(name)

    def add_entry(self, name: str, key: str, value: Any) -> None:
        """The same where the list is an object."""
        handle = self._handles[name]
        handle.write(b",\n" if name in self._some else b"\n")
        handle.write(orjson.dumps(key) + b": " + orjson.dumps(value))
        self._some.add(name)

    def publish(self, first: dict[str, Any], last: dict[str, Any], objects: Sequence[str] = ()) -> None:
        """Write the file.

        Args:
            first: what stands before the lists.
            last: what stands behind them.
            objects: lists that are objects, see `add_entry`.

        Raises:
            OSError: could not be written.
        """
        for handle in self._handles.values():
            handle.flush()
        whole = scratch_file(self._url)
        try:
            with open(whole, "wb") as out:
                out.write(b"{")
                pieces = [*first, *self._paths, *last]
                for place, name in enumerate(pieces):
                    out.write((b",\n" if place else b"\n") + json.dumps(name).encode() + b": ")
                    if name in self._paths:
                        opening, closing = (b"{", b"}") if name in objects else (b"[", b"]")
                        out.write(opening)
                        for chunk in _chunks(self._paths[name]):
                            out.write(chunk)
                        out.write(closing)
                    else:
                        out.write(orjson.dumps((first | last)[name]))
                out.write(b"\n}\n")
            publish_file(whole, self._url)
        finally:
            whole.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the scratch files."""
        for name, handle in self._handles.items():
            handle.close()
            self._paths[name].unlink(missing_ok=True)


def xywh(box: NDArray[np.float64]) -> list[float]:
    """`xyxy` as x, y, width, height, to a hundredth of a pixel as boxes are stored."""
    x0, y0, x1, y1 = (float(side) for side in box)
    return [round(x0, 2), round(y0, 2), round(x1 - x0, 2), round(y1 - y0, 2)]


def _chunks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as handle:
        while chunk := handle.read(1 << 20):
            yield chunk
