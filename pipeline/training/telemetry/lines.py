"""A file of JSON lines that a run appends to, and that a resumed run cuts back to where it goes on."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

import orjson

from trackmill.pipeline.storage.files import exists, read_bytes
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.storage.scratch import naming
from trackmill.pipeline.storage.urls import filesystem, is_local


class JsonLines:
    """Appends objects, one a line, in the order of their steps.

    Local files are appended to and flushed with every call, so that a killed process loses nothing that was said.
    Object stores cannot append: there the lines are kept in memory and the whole file is written anew, after
    `upload_s` at the earliest and never for more than a twentieth of the time; a kill loses what came since.

    Args:
        url: the file.
        keep_to: lines of later steps are dropped; None where lines have no step and all are kept. In any case
            unreadable lines go, e.g. the half one of a killed writer, and steps that do not follow the one before.
        upload_s: seconds.
        clock: for tests.

    Raises:
        OSError: cannot be read or written.
    """

    def __init__(
        self, url: str, *, keep_to: int | None, upload_s: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.url = url
        self.last_step: int | None = None
        """Step of the last line, None where there is none."""
        self.last_row: Mapping[str, Any] = {}
        """The last line."""
        self._stepped, self._upload_s, self._clock = keep_to is not None, upload_s, clock
        self._file: IO[bytes] | None = None
        self._memory = bytearray()
        self._dirty = False
        self._next_upload = clock() + upload_s
        found = exists(url)
        data = self._kept(read_bytes(url), keep_to) if found else b""
        if found:
            # Also where nothing was dropped: a process of an earlier attempt that still lives writes to the old file.
            publish_bytes(url, data)
        if is_local(url):
            path = filesystem(url)[1]
            os.makedirs(os.path.dirname(path), exist_ok=True)
            self._file = open(path, "ab")  # noqa: SIM115 - closed by `close`
        else:
            self._memory += data

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add objects; numbers that are not finite become null.

        Raises:
            ValueError: a step does not follow the one before.
            OSError: the local file cannot be written. A failed upload is tried again later.
        """
        text = bytearray()
        for row in rows:
            if self._stepped:
                step = int(row["step"])
                if self.last_step is not None and step <= self.last_step:
                    raise ValueError(f"{self.url}: step {step} after step {self.last_step}")
                self.last_step = step
                row = {**row, "step": step}
            self.last_row = row
            text += orjson.dumps({name: _plain(value) for name, value in row.items()}) + b"\n"
        if self._file is not None:
            with naming(self.url):
                self._file.write(text)
                self._file.flush()
        else:
            self._memory += text
            self._dirty = self._dirty or bool(text)
            if self._clock() >= self._next_upload:
                self._try_upload()

    def sync(self) -> None:
        """Return when everything is stored where it outlives this machine's process, or for local files its power.

        Raises:
            OSError: it could not be stored.
        """
        if self._file is not None:
            with naming(self.url):
                self._file.flush()
                os.fsync(self._file.fileno())
        elif self._dirty:
            publish_bytes(self.url, bytes(self._memory))
            self._dirty = False

    def close(self) -> None:
        """`sync` and no more lines.

        Raises:
            OSError: it could not be stored.
        """
        try:
            self.sync()
        finally:
            if self._file is not None:
                self._file.close()

    def _try_upload(self) -> None:
        began = self._clock()
        with contextlib.suppress(OSError):  # `sync` before the next checkpoint says so if it stays like this
            self.sync()
        ended = self._clock()
        self._next_upload = ended + max(self._upload_s, 20 * (ended - began))

    def _kept(self, data: bytes, keep_to: int | None) -> bytes:
        kept = []
        for line in data.split(b"\n"):
            try:
                row = orjson.loads(line)
                if keep_to is not None:
                    step = row["step"]
                    if step > keep_to or (self.last_step is not None and step <= self.last_step):
                        continue
                    self.last_step = int(step)
                self.last_row = row
            except (ValueError, TypeError, KeyError):
                continue
            kept.append(line + b"\n")
        return b"".join(kept)


def read_lines(url: str) -> list[dict[str, Any]]:
    """All objects of a file of JSON lines; unreadable lines are left out.

    Raises:
        FileNotFoundError: no such file.
    """
    rows = []
    for line in read_bytes(url).split(b"\n"):
        try:
            row = orjson.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _plain(value: Any) -> Any:
    """A number that JSON has: numpy scalars and one-element tensors are taken, nan and infinity are None."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
