"""Room on the disk of an output, as two gauges."""

from __future__ import annotations

import contextlib
import shutil

from trackmill.pipeline.metrics.recorder import Recorder
from trackmill.pipeline.storage.urls import filesystem, is_local


def record_disk(recorder: Recorder, output: str, kind: str) -> None:
    """Tell free bytes and size of the disk of a local output.

    Args:
        recorder: where to.
        output: root URL.
        kind: `mining` or `training`.
    """
    if recorder and is_local(output):
        with contextlib.suppress(OSError):
            usage = shutil.disk_usage(filesystem(output)[1])
            recorder.set(f"trackmill_{kind}_output_free_bytes", usage.free)
            recorder.set(f"trackmill_{kind}_output_size_bytes", usage.total)
