"""Tensors by name out of a checkpoint file: official `.pth` or `.safetensors`, from a path or a URL. Runs no code."""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trackmill.models.masa.variants import Variant
from trackmill.schemas.errors import InputError

_WRAPPERS = ("state_dict", "model", "model_state_dict", "ema_state_dict", "model_ema", "ema")
"""Under which of its keys a checkpoint holds the state dict, the first that is there."""

_PREFIXES = ("module.", "_orig_mod.", "ema_model.", "model.")
"""What training tools put before every name."""

_COUNTERS = ("n_averaged", "steps")
"""What averaging tools put beside the names."""

_METADATA = "trackmill"

_SHA_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.(?:pth|pt|safetensors)$")
"""Model zoos write the first digits of a file's SHA-256 into its name."""

_TRAINER_LEFTOVERS = re.compile(r"(mmengine|mmcv|mmdet|numpy)\.[\w.]+|(builtins\.)?getattr|_codecs\.encode")
"""What mmengine stores beside the tensors: its log, made of these. Read as nothing, see `_Leftover`."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a file holds.

    Args:
        tensors: by name, on the CPU, without wrappers and common prefixes.
        metadata: what `metadata_of` put into a safetensors file: `variant` (a name), `compatible_offsets` (a bool) and
            more; empty for files of others.
        where: the path, or the URL without credentials, for messages.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)
    where: str = "the weights"


def read_checkpoint(source: str | os.PathLike[str]) -> Checkpoint:
    """Read a file.

    A file behind a URL is kept in `$TRACKMILL_CACHE` (or `~/.cache/trackmill`) and fetched again when it changes. A
    name that ends in digits of a SHA-256 (`...-55949c9c.pth`) is held to them.

    Args:
        source: a path or any URL that fsspec reads.

    Raises:
        ValueError: damaged, not what its name promises, or it holds more than tensors.
        FileNotFoundError: there is no such file.
    """
    path, where = _local(os.fspath(source))
    _check_name(path, where)
    with open(path, "rb") as handle:
        start = handle.read(9)
    # By content, since a URL's name says nothing: a safetensors file starts with a length and a JSON object.
    if start[8:] == b"{":
        tensors, metadata = _read_safetensors(path, where)
        return Checkpoint(tensors=state_dict_of(tensors, where), metadata=metadata, where=where)
    return Checkpoint(tensors=state_dict_of(_read_torch(path, where), where), where=where)


def state_dict_of(loaded: Any, where: str = "the weights") -> dict[str, Tensor]:
    """Take wrappers (`{"state_dict": ...}`) and common prefixes (`module.`) off.

    Raises:
        ValueError: what is left are not tensors by name.
    """
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
            break
    if not isinstance(loaded, Mapping) or not loaded:
        raise InputError(f"{where}: holds a {type(loaded).__name__} where tensors by name were expected")
    state = {str(name): values for name, values in loaded.items()}
    while prefix := next((each for each in _PREFIXES if _all_begin_with(state, each)), None):
        state = {name.removeprefix(prefix): values for name, values in state.items() if name not in _COUNTERS}
    others = [name for name, values in state.items() if not isinstance(values, Tensor)]
    if others:
        raise InputError(f"{where}: {len(others)} entries are no tensors: {', '.join(others[:5])}")
    return state


def metadata_of(variant: Variant, **more: str) -> dict[str, str]:
    """Metadata for safetensors files of `variant`; a model loaded from them then samples as it was trained to."""
    told = {"variant": variant.name, "compatible_offsets": variant.compatible_offsets, **more}
    # One entry, since safetensors writes several in an order of its own each time.
    return {_METADATA: json.dumps(told, sort_keys=True)}


def _all_begin_with(state: Mapping[str, Any], prefix: str) -> bool:
    names = [name for name in state if name not in _COUNTERS]
    return bool(names) and all(name.startswith(prefix) for name in names)


def _local(source: str) -> tuple[Path, str]:
    """A path on this machine, and what messages call it."""
    if "://" not in source or source.startswith("file://"):
        path = Path(source.removeprefix("file://")).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"no checkpoint at {path}: check the path, or give a URL")
        return path, str(path)
    parts = urlsplit(source)
    where = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
    root = os.environ.get("TRACKMILL_CACHE") or os.path.join(os.path.expanduser("~"), ".cache", "trackmill")
    cache = {"cache_storage": os.path.join(root, "checkpoints"), "check_files": True}
    return Path(fsspec.open_local(f"filecache::{source}", filecache=cache)), where


def _check_name(path: Path, where: str) -> None:
    promised = _SHA_IN_NAME.search(where)
    if promised is None:
        return
    with open(path, "rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if not found.startswith(promised[1]):
        raise InputError(
            f"{where}: its SHA-256 is {found}, but its name promises {promised[1]}...: the file is damaged or was "
            "changed; fetch it again, or give your own checkpoint a name without those digits"
        )


def _read_safetensors(path: Path, where: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as handle:
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
            written = (handle.metadata() or {}).get(_METADATA, "{}")
    except SafetensorError as error:
        raise InputError(f"{where}: not a whole safetensors file: {error}") from None
    try:
        told = json.loads(written)
    except json.JSONDecodeError:
        told = None
    if not isinstance(told, dict):
        raise InputError(f"{where}: its metadata {_METADATA!r} is not what trackmill writes: {written[:80]}")
    return tensors, told


class _Leftover:
    """Stands for an object of the training tool: takes whatever it is given and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _Leftover:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def _read_torch(path: Path, where: str) -> Any:
    try:
        # Only tensors and plain containers are made, whatever the file asks for.
        beside = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        foreign = [name for name in beside if not _TRAINER_LEFTOVERS.fullmatch(name)]
        if foreign:
            raise InputError(f"it asks for {', '.join(sorted(foreign)[:5])}")
        with torch.serialization.safe_globals([(_Leftover, _full_name(name)) for name in beside]):
            # Mapped, not read: the parts of a detector that tracking has no use for are never touched.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError:
        raise
    except Exception as error:
        # torch goes on to recommend weights_only=False, just what not to do: only its first sentence is told.
        cause = re.split(r"(?<=\w)\. |\n", str(error).strip(), maxsplit=1)[0]
        raise InputError(
            f"{where}: not loaded, because it is damaged or holds more than tensors ({cause}); if it is yours, save it "
            "again with torch.save(model.state_dict(), path)"
        ) from None


def _full_name(name: str) -> str:
    # torch lists what is built in without its module, and looks it up with it.
    return name if "." in name else f"builtins.{name}"
