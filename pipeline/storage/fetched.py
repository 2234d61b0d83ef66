"""Checkpoints: fetched once into a cache, hashed, checked against what is published, and loaded without running code.

A file on this machine is used where it lies. A remote one is streamed into `$TRACKMILL_CACHE` (or
`~/.cache/trackmill`) under a name that changes when the object behind the URL does.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from trackmill.models.proposers.base import ProposerUnavailable
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import ShortRead, basename, canonical, filesystem, is_local, retry
from trackmill.pipeline.storage.publish import publish_file, scratch_file, sweep_scratch
from trackmill.schemas.errors import InputError
from trackmill.schemas.published import check_md5, promised_md5

if TYPE_CHECKING:
    import torch

_BLOCK = 8 << 20
# What file systems call the thing that changes when an object is overwritten, the surest first.
_VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "Last-Modified", "mtime", "created")
_WRAPPERS = ("model", "state_dict")


class BadWeights(InputError):
    """A checkpoint that is damaged, is not the one that was asked for, or holds more than tensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A checkpoint on this machine, checked.

    Args:
        path: where it lies.
        name: its name at the place it came from.
        sha256: of the file, 64 hexadecimal digits.
    """

    path: Path
    name: str
    sha256: str


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
    return _checked(path, name, sha256, str(path))


def load_state_dict(weights: Weights) -> dict[str, torch.Tensor]:
    """Tensors of a checkpoint by name, on the CPU. Takes `{"model": ...}` and `{"state_dict": ...}` apart.

    Only tensors are read: `.safetensors`, or PyTorch files with `weights_only=True`. A file that holds anything else is
    refused and none of its code runs.

    Raises:
        BadWeights: the file is damaged or holds more than tensors.
        ProposerUnavailable: torch, or safetensors for a file of that kind, is not installed.
    """
    loaded = _load_safetensors(weights) if weights.name.endswith(".safetensors") else _load_torch(weights)
    for wrapper in _WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not loaded:
        raise BadWeights(f"{weights.path}: holds a {type(loaded).__name__} where a state dict was expected")
    others = [str(key) for key, value in loaded.items() if not hasattr(value, "shape")]
    if others:
        raise BadWeights(f"{weights.path}: {len(others)} entries are no tensors ({', '.join(others[:5])}); {_SAVE}")
    return dict(loaded)


_SAVE = "save it again with torch.save(model.state_dict(), path)"


def _load_torch(weights: Weights) -> Any:
    try:
        import torch
    except ImportError as error:
        raise ProposerUnavailable('checkpoints need torch: pip install -e ".[sam]"') from error
    try:
        return torch.load(weights.path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        raise BadWeights(
            f"{weights.path}: not loaded, because it is damaged or holds more than tensors; if it is yours, {_SAVE}. "
            f"torch says: {_first_cause(error)}"
        ) from None


def _first_cause(error: Exception) -> str:
    # Only the cause, or else the first sentence: torch goes on to recommend weights_only=False, just what not to do.
    text = str(error).strip()
    sentence = re.search(r"WeightsUnpickler error: (.+?)(?:\. |\n|$)", text) or re.match(r"(.+?)(?:\. |\n|$)", text)
    return f"{type(error).__name__}: {sentence.group(1)}" if sentence else type(error).__name__


def _load_safetensors(weights: Weights) -> Any:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ProposerUnavailable(f"{weights.name} needs another package: pip install safetensors") from error
    try:
        return load_file(weights.path, device="cpu")
    except OSError:
        raise
    except Exception as error:
        raise BadWeights(f"{weights.path}: not a safetensors file: {error}") from None


def _checked(path: Path, name: str, sha256: str, where: str) -> Weights:
    """Hash a file and compare with what is known of it; `where` is what an error calls it."""
    sums = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    promised = bool(promised_md5(name))
    with open(path, "rb") as handle:
        while block := handle.read(_BLOCK):
            for each in sums if promised else sums[:1]:
                each.update(block)
    found = sums[0].hexdigest()
    if promised:
        try:
            check_md5(name, sums[1].hexdigest(), where)
        except ValueError as error:
            raise BadWeights(str(error)) from None
    if sha256 and found != sha256:
        raise BadWeights(
            f"{where}: its SHA-256 is {found}, this run was planned with {sha256}: the file differs between machines "
            "or was replaced; put the same file everywhere, or start a new run"
        )
    return Weights(path=path, name=name, sha256=found)


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
