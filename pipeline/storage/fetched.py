"""Checkpoints: fetched once into a cache, hashed, checked against what is published, and loaded without running code.

A file on this machine is used where it lies. A remote one is streamed into `$TRACKMILL_CACHE` (or
`~/.cache/trackmill`) under a name that changes when the object behind the URL does.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import ShortRead, basename, canonical, filesystem, is_local, retry
from trackmill.pipeline.storage.publish import publish_file, scratch_file, sweep_scratch
from trackmill.schemas.published import BadWeights, check_name, promised_md5

_BLOCK = 8 << 20
# What file systems call the thing that changes when an object is overwritten, the surest first.
_VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "Last-Modified", "mtime", "created")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A checkpoint on this machine, checked.

    Args:
        path: where it lies.
        name: its name at the place it came from.
        sha256: of the file, 64 hexadecimal digits.
        where: the path, or the URL without credentials, for messages.
    """

    path: Path
    name: str
    sha256: str
    where: str = field(default="", compare=False)


def fetch_weights(url: str, sha256: str = "") -> Weights:
    """Bring a checkpoint to this machine and check it.

    Args:
        url: a path or any URL that storage reads.
        sha256: what the file must have; empty: anything.

    Raises:
        BadWeights: another SHA-256, or not the MD5 that an official file's name promises.
        FileNotFoundError: there is no such file.
        OSError: it could not be fetched after several attempts.
    """
    url = canonical(url)
    if is_local(url):
        path = Path(url)
        if not path.is_file():
            raise FileNotFoundError(f"no checkpoint at {path}; check the path, or give a URL")
        return _checked(path, path.name, sha256, str(path))

    name = basename(urlsplit(url).path)
    fs, remote = filesystem(url)
    info: dict[str, Any] = retry(lambda: fs.info(remote), url)
    path = _cache_folder() / _cache_name(url, name, info)
    with _alone(path):
        if not path.exists():
            sweep_scratch(str(path.parent))
            _download(fs, remote, url, info.get("size"), path, name, sha256)
    return _checked(path, name, sha256, redact(url))


def _checked(path: Path, name: str, sha256: str, where: str) -> Weights:
    """Hash a file and compare with what is known of it; `where` is what an error calls it."""
    sums = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    promised = bool(promised_md5(name))
    with open(path, "rb") as handle:
        while block := handle.read(_BLOCK):
            for each in sums if promised else sums[:1]:
                each.update(block)
    found = sums[0].hexdigest()
    check_name(name, {"sha256": found} | ({"md5": sums[1].hexdigest()} if promised else {}), where)
    if sha256 and found != sha256:
        raise BadWeights(
            f"{where}: its SHA-256 is {found}, this run was planned with {sha256}: the file differs between machines "
            "or was replaced; put the same file everywhere, or start a new run"
        )
    return Weights(path=path, name=name, sha256=found, where=where)


def _cache_folder() -> Path:
    root = os.environ.get("TRACKMILL_CACHE") or os.path.join(os.path.expanduser("~"), ".cache", "trackmill")
    folder = Path(root).absolute() / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _cache_name(url: str, name: str, info: dict[str, Any]) -> str:
    version = next((str(info[key]) for key in _VERSIONS if info.get(key)), "")
    # A signed URL has another query each time and is still the same file.
    identity = f"{redact(url)}\n{info.get('size')}\n{version}"
    return f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}-{name}"


def _download(fs: Any, remote: str, url: str, size: int | None, path: Path, name: str, sha256: str) -> None:
    scratch = scratch_file(str(path))
    try:

        def download() -> None:
            fs.get_file(remote, str(scratch))  # in blocks, never whole in memory
            arrived = scratch.stat().st_size
            if size is not None and arrived != size:
                raise ShortRead(f"{redact(url)}: {arrived} of {size} bytes arrived")

        retry(download, url)
        _checked(scratch, name, sha256, redact(url))  # before it gets its name: a bad file must not stay in the cache
        publish_file(scratch, str(path))
    finally:
        scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock beside `path`, so that the eight actors of a machine fetch 2.5 GB once and not eight times."""
    with open(path.with_name(f"{path.name}.lock"), "w") as handle:
        # Some network file systems have no locks; then all of them fetch, and the rename keeps that harmless.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
