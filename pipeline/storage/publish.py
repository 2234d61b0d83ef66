"""Writing so that a name never shows a half file: local files by rename, objects by one upload that is then checked."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import ShortRead
from trackmill.pipeline.storage.retries import retry
from trackmill.pipeline.storage.scratch import check_writable, naming, scratch_path
from trackmill.pipeline.storage.urls import filesystem, is_local


def publish_bytes(url: str, data: bytes, private: bool = False) -> None:
    """Write a small file under its final name, whole or not at all.

    Args:
        url: where to.
        data: all of it.
        private: on this machine, nobody but its owner may read it; a store has its own rules.

    Raises:
        InputError: nothing can be written to `url`.
        OSError: could not be written after several attempts.
    """
    check_writable(url)
    fs, path = filesystem(url)
    if is_local(url):
        temporary = scratch_path(path)
        try:
            with naming(path), open(temporary, "wb", opener=_private if private else None) as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return

    def upload() -> None:
        fs.pipe_file(path, data)
        _check_size(fs, path, url, len(data))

    retry(upload, url)


def publish_file(local_path: Path, url: str) -> None:
    """Move a finished local file to its final place; `local_path` is gone afterwards.

    Raises:
        OSError: could not be written after several attempts.
    """
    fs, path = filesystem(url)
    if is_local(url):
        # The file was made in the target's own folder by `scratch_file`, so this is one rename.
        with naming(path), open(local_path, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(local_path, path)
        return

    retry(lambda: _upload(fs, local_path, path, url), url)
    local_path.unlink()


def publish_copy(local_path: Path, url: str) -> None:
    """Write a copy of a local file under its final name, whole or not at all.

    Raises:
        InputError: nothing can be written to `url`.
        OSError: could not be written after several attempts.
    """
    check_writable(url)
    fs, path = filesystem(url)
    if is_local(url):
        temporary = scratch_path(path)
        try:
            with naming(path):
                shutil.copyfile(local_path, temporary)
            publish_file(temporary, url)
        finally:
            temporary.unlink(missing_ok=True)
        return
    retry(lambda: _upload(fs, local_path, path, url), url)


def remove(url: str) -> None:
    """Remove a file, or a folder and what is in it; nothing happens where there is none."""
    fs, path = filesystem(url)

    def take_away() -> None:
        fs.invalidate_cache()
        # Name by name: `fs.rm(path)` of an object store takes `[1]` in a name for a pattern, and what fits it goes too.
        below = fs.find(path, withdirs=True, detail=True)
        for name, info in sorted(below.items(), reverse=True):
            with contextlib.suppress(FileNotFoundError):
                fs.rm_file(name) if info["type"] == "file" else fs.rmdir(name)
        if below and fs.isdir(path):
            fs.rmdir(path)

    if not is_local(url):
        return retry(take_away, url)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)


def _upload(fs: object, local_path: Path, path: str, url: str) -> None:
    fs.put_file(str(local_path), path)  # type: ignore[attr-defined]
    _check_size(fs, path, url, local_path.stat().st_size)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _check_size(fs: object, path: str, url: str, expected: int) -> None:
    fs.invalidate_cache()  # type: ignore[attr-defined]
    size = fs.info(path)["size"]  # type: ignore[attr-defined]
    if size != expected:
        raise ShortRead(f"{redact(url)}: {size} of {expected} bytes were stored")
