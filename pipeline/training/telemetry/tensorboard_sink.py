"""TensorBoard event files without TensorFlow, on any file system."""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.storage.urls import basename, is_local, join
from trackmill.pipeline.training.telemetry.sinks import Scalars

_MAX_BYTES = 8 << 20
"""Of a file that is uploaded again and again; then the next one begins."""


class TensorBoardSink:
    """Writes scalars under `folder`.

    Each attempt at a run begins a file; its first record tells TensorBoard to forget what earlier ones wrote from
    step `start_step` + 1 on. Files are numbered, because TensorBoard reads them in the order of their names.

    Args:
        folder: URL. If it is not local the file is written to a temporary folder and copied at `sync`, `close` and,
            within limits, in between.
        start_step: steps done before.
        upload_s: least seconds between two copies.
    """

    name = "TensorBoard"

    def __init__(self, folder: str, start_step: int, upload_s: float) -> None:
        self._folder, self._upload_s = folder, upload_s
        self._remote = not is_local(folder)
        self._scratch = tempfile.TemporaryDirectory(prefix="trackmill-") if self._remote else None
        self._local = Path(self._scratch.name if self._scratch else folder)
        self._local.mkdir(parents=True, exist_ok=True)
        self._number = _last_number(folder)
        self._dirty = False
        self._next_upload = time.monotonic() + upload_s
        continued = self._number > 0
        self._open()
        if continued:
            self._write(Event(step=start_step + 1, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, scalars: Scalars) -> None:
        """One record for each step."""
        for step, values in scalars:
            parts = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
            self._write(Event(step=step, summary=Summary(value=parts)))
        self._file.flush()
        if self._remote and time.monotonic() >= self._next_upload:
            self.sync()

    def sync(self) -> None:
        """Copy what is new."""
        self._file.flush()
        if not (self._remote and self._dirty):
            return
        began = time.monotonic()
        publish_bytes(join(self._folder, self._path.name), self._path.read_bytes())
        self._dirty = False
        if self._file.tell() > _MAX_BYTES:
            self._file.close()
            self._path.unlink()
            self._open()
        ended = time.monotonic()
        self._next_upload = ended + max(self._upload_s, 20 * (ended - began))

    def close(self, status: str) -> None:
        """Copy and clean up."""
        try:
            self.sync()
        finally:
            self._file.close()
            if self._scratch:
                self._scratch.cleanup()

    def _open(self) -> None:
        self._number += 1
        self._path = self._local / f"events.out.tfevents.{self._number:010d}.trackmill"
        self._file = open(self._path, "wb")  # noqa: SIM115 - closed by `close`
        self._records = RecordWriter(self._file)
        self._write(Event(file_version="brain.Event:2"))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
        self._dirty = True


def _last_number(folder: str) -> int:
    try:
        names = [basename(info.uri) for info in list_files(folder)]
    except FileNotFoundError:
        return 0
    found = (re.fullmatch(r"events\.out\.tfevents\.(\d+)\.trackmill", name) for name in names)
    return max((int(match.group(1)) for match in found if match), default=0)
