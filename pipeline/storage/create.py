"""Making a small file only where none is: of many who try at once, one succeeds."""

from __future__ import annotations

import contextlib
import errno
import os
import time

from trackmill.pipeline.storage.credentials import protocol_of
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.storage.retries import retry
from trackmill.pipeline.storage.scratch import check_writable, naming, scratch_path
from trackmill.pipeline.storage.urls import filesystem, is_local

SETTLE_S = 1.0
"""Where a store has no "create if absent": who wrote looks once more after so long."""

_CONDITIONAL = ("s3", "gs")
"""Stores that take "create if absent". Some that speak S3 ignore it, which the first file shows."""
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_KNOWN: dict[str, bool] = {}
"""Whether a bucket keeps the condition, by its scheme and name, as the first file that was made there showed."""


def create_bytes(url: str, data: bytes) -> bool:
    """Write a small file if there is none under its name.

    A store that knows no "create if absent" is written to and looked at again after `SETTLE_S`: of two who write at
    once one sees that the other was last. Two who are further apart than that, on such a store, may both succeed.

    Args:
        url: where to.
        data: all of it; no two writers have the same.

    Returns:
        Whether the file that is there is this one. It may be an older try of the same writer.

    Raises:
        InputError: nothing can be written to `url`.
        OSError: could not be written after several attempts.
    """
    check_writable(url)
    if is_local(url):
        return _create_local(filesystem(url)[1], data)
    bucket = _bucket(url)
    if protocol_of(url) in _CONDITIONAL and _KNOWN.get(bucket, True):
        if bucket not in _KNOWN and (there := _read(url)) is not None:
            return there == data
        made = _create_conditionally(url, data)
        if bucket not in _KNOWN and made is not False:
            # Once more: it must be refused. Where it is not, it was the same bytes that were written twice.
            _KNOWN[bucket] = bool(made) and _create_conditionally(url, data) is False
        if _KNOWN.get(bucket, True):
            return bool(made) or _read(url) == data
    elif (there := _read(url)) is not None:
        return there == data
    publish_bytes(url, data)
    time.sleep(SETTLE_S)
    return _read(url) == data


def _create_local(path: str, data: bytes) -> bool:
    """A link appears with all that is in the file, and not where something is; NFS keeps that, too."""
    temporary = scratch_path(path)
    try:
        with naming(path), open(temporary, "xb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        try:
            os.link(temporary, path)
            return True
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
        try:
            with open(path, "xb", buffering=0) as handle:
                handle.write(data)
            return True
        except FileExistsError:
            return False
    finally:
        temporary.unlink(missing_ok=True)


def _create_conditionally(url: str, data: bytes) -> bool | None:
    """Whether the store made the file; None where it keeps no condition."""
    fs, path = filesystem(url)

    def create() -> bool | None:
        try:
            fs.pipe_file(path, data, mode="create")
            return True
        except FileExistsError:
            return False
        except NotImplementedError:
            return None
        except OSError as error:
            answer = getattr(error.__cause__, "response", None)
            code = answer.get("Error", {}).get("Code") if isinstance(answer, dict) else None
            if code == "NotImplemented":
                return None
            raise

    return retry(create, url)


def _bucket(url: str) -> str:
    return "/".join(url.split("/", 3)[:3])


def _read(url: str) -> bytes | None:
    with contextlib.suppress(FileNotFoundError):
        return read_bytes(url, max_bytes=64 * 1024)
    return None
