"""Checkpoint files: brought to this machine once, into one cache, and held to the sums that are known of them.

A file on this machine is used where it lies. A remote one goes into `$TRACKMILL_CACHE/weights` (or
`~/.cache/trackmill/weights`) under a name that changes when the object behind the URL does. While it arrives it is
called `NAME.part`, and whoever comes next goes on from there. One process of a machine fetches, the others wait.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import glob
import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trackmill.pipeline.storage.credentials import protocol_of, redact
from trackmill.pipeline.storage.download import ObjectChanged, check_status, download
from trackmill.pipeline.storage.names import existing_path
from trackmill.pipeline.storage.publish import publish_file
from trackmill.pipeline.storage.retries import retry
from trackmill.pipeline.storage.scratch import scratch_file, sweep_scratch
from trackmill.pipeline.storage.urls import basename, canonical, filesystem, is_local
from trackmill.pipeline.storage.versions import version_of
from trackmill.schemas.errors import StorageError
from trackmill.schemas.published import BadWeights, check_sums, promised_md5

_BLOCK = 8 << 20

_ROUNDS = 3
"""How often a file is begun anew because it changed, or was damaged, while it was fetched."""

_ABANDONED_S = 14 * 24 * 3600
"""Partial files of objects that have changed since are never asked for again; after two weeks they are removed."""


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
        url: a path, `hf://org/repo/file` (with `@revision` after `repo` or at the end, if it is not the newest), or
            any other URL that storage reads.
        sha256: what the file must have; empty: anything.

    Raises:
        BadWeights: another SHA-256, or not the sum that a published file's name promises.
        FileNotFoundError: there is no such file.
        PermissionError: it is not for us; credentials come from the environment.
        OSError: it could not be fetched after several attempts; what arrived is kept, and the next call goes on.
        MissingPackage: the protocol's package is not installed; says what to type.
    """
    url = canonical(url)
    if is_local(url):
        path = Path(existing_path(url))
        if not path.is_file():
            raise FileNotFoundError(f"no checkpoint at {path}; check the path, or give a URL")
        return _checked(path, path.name, sha256, str(path))

    name = basename(urlsplit(url).path).partition("@")[0]
    fs, remote = filesystem(url)
    for _ in range(_ROUNDS):
        try:
            info = _look(fs, remote, url)
        except StorageError as error:
            raise StorageError(f"{error}; without a network, give the path of a file that you have") from error
        path = cache_folder() / f"{_identity(url, info)}-{name}"
        if not _is_there(path, info):
            with _alone(path) as locked:
                if not _is_there(path, info) and not _bring(fs, remote, url, info, path, name, sha256, locked):
                    continue
        try:
            return _checked(path, name, sha256, redact(url))
        except BadWeights as error:
            raise BadWeights(f"{error} (this machine's copy is {path})") from None
    raise StorageError(f"{redact(url)}: it changed {_ROUNDS} times while it was fetched; try again when it is at rest")


def fetch_published(url: str, sha256: str) -> Weights:
    """As `fetch_weights`, of a published file that never changes: a copy that lies here needs no network.

    Args:
        url: of the file.
        sha256: of the file, 64 hexadecimal digits. The copy may be one that was fetched before, or one that somebody
            put into the cache by hand, as NAME.

    Raises:
        StorageError: it is not here and cannot be fetched; says what to download and where to put it.
        BadWeights: what came is another file.
        PermissionError, MissingPackage: see `fetch_weights`.
    """
    name = basename(urlsplit(canonical(url)).path)
    if is_local(url):
        return fetch_weights(url, sha256)
    folder = cache_folder()
    for path in (folder / name, *sorted(folder.glob(f"*-{glob.escape(name)}"))):
        with contextlib.suppress(BadWeights, OSError):
            return _checked(path, name, sha256, redact(url))
    try:
        return fetch_weights(url, sha256)
    except OSError as error:
        raise StorageError(
            f"{error}; or download {redact(url)} where there is a network, and put it here as {folder / name}"
        ) from error
    except BadWeights as error:
        raise BadWeights(
            f"{redact(url)}: what came is not the published file, whose SHA-256 is {sha256}: a proxy or a mirror gave "
            f"something else; download the file elsewhere, and put it here as {folder / name}"
        ) from error


def _look(fs: Any, remote: str, url: str) -> dict[str, Any]:
    """What the file system says of the object now: its size and version."""

    def look() -> dict[str, Any]:
        fs.invalidate_cache()
        try:
            info: dict[str, Any] = fs.info(remote)
        except FileNotFoundError as error:
            # fsspec says so of every failure over HTTP: only what the server said itself is final.
            cause = error.__cause__
            if cause is not None and protocol_of(url) in ("http", "https"):
                status = getattr(cause, "status", None)
                if status is None:
                    raise StorageError(f"{redact(url)}: {cause}") from error
                check_status(status, url)
            raise FileNotFoundError(f"no checkpoint at {redact(url)}: check the URL") from error
        return info

    return retry(look, url)


def _is_there(path: Path, info: Mapping[str, Any]) -> bool:
    """Whether the cache has it, whole."""
    return path.exists() and info.get("size") in (None, path.stat().st_size)


def _bring(
    fs: Any, remote: str, url: str, info: Mapping[str, Any], path: Path, name: str, sha256: str, locked: bool
) -> bool:
    """Fetch into `path`; False where it has to be begun anew."""
    _sweep(path.parent)
    # Without a lock two processes may be here at once, and each needs a file of its own.
    part = path.with_name(f"{path.name}.part") if locked else scratch_file(str(path))
    try:
        pieced = download(fs, remote, url, part, size=info.get("size"), version=version_of(info))
    except ObjectChanged:
        part.unlink(missing_ok=True)
        return False
    except BaseException:
        if not locked:
            part.unlink(missing_ok=True)
        raise
    if pieced and _identity(url, _look(fs, remote, url)) != _identity(url, info):
        part.unlink()
        return False
    # Before it gets its name: a bad file must not stay in the cache.
    try:
        _checked(part, name, sha256, redact(url))
        _check_published(part, info, redact(url))
    except BadWeights:
        part.unlink()
        if pieced:
            return False  # perhaps only what lay here already was damaged
        raise
    publish_file(part, str(path))
    return True


def _checked(path: Path, name: str, sha256: str, where: str) -> Weights:
    """Hash a file and compare with what is known of it; `where` is what an error calls it."""
    sums = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    promised = bool(promised_md5(name))
    with open(path, "rb") as handle:
        while block := handle.read(_BLOCK):
            for each in sums if promised else sums[:1]:
                each.update(block)
    found = sums[0].hexdigest()
    check_sums(name, {"sha256": found} | ({"md5": sums[1].hexdigest()} if promised else {}), where)
    if sha256 and found != sha256:
        raise BadWeights(
            f"{where}: its SHA-256 is {found}, this run was planned with {sha256}: the file differs between machines "
            "or was replaced; put the same file everywhere, or start a new run"
        )
    return Weights(path=path, name=name, sha256=found, where=where)


def _check_published(path: Path, info: Mapping[str, Any], where: str) -> None:
    """Compare with the sum that the storage itself keeps of the object, where it keeps one (Hugging Face, GCS)."""
    large = info.get("lfs") or {}
    known = large.get("sha256") if isinstance(large, Mapping) else getattr(large, "sha256", None)
    kind = "sha256"
    if not known and info.get("md5Hash"):
        known, kind = base64.b64decode(str(info["md5Hash"])).hex(), "md5"
    if not known:
        return
    with open(path, "rb") as handle:
        found = hashlib.file_digest(handle, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
    if found != known:
        raise BadWeights(f"{where}: its {kind} is {found}, but the storage says {known}: it was damaged on its way")


def cache_folder(kind: str = "weights") -> Path:
    """The folder of this machine's cache for files of a kind; it is made.

    Raises:
        OSError: it cannot be made.
    """
    root = os.environ.get("TRACKMILL_CACHE") or os.path.join(os.path.expanduser("~"), ".cache", "trackmill")
    folder = Path(root).absolute() / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _identity(url: str, info: Mapping[str, Any]) -> str:
    # A signed URL has another query each time and is still the same file.
    identity = f"{redact(url)}\n{info.get('size')}\n{version_of(info)}"
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _sweep(folder: Path) -> None:
    """Remove what was begun and will not be finished."""
    sweep_scratch(str(folder))
    for part in folder.glob("*.part"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > _ABANDONED_S:
                part.unlink()


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Hold a lock beside `path`, so that the eight ranks of a machine fetch 2.5 GB once and not eight times.

    Gives whether there is a lock: some network file systems have none. Then all of them fetch, each for itself, and the
    rename at the end keeps that harmless.
    """
    with open(path.with_name(f"{path.name}.lock"), "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            locked = True
        except OSError:
            locked = False
        yield locked
