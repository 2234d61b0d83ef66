"""Checkpoints read back: which one is the newest whole one, and what is in it.

A checkpoint is whole when its document matches its own checksum (`checkpoint_document`) and each file has the length
and the SHA-256 that the document records. A damaged one is reported, and the one before is used.
"""

from __future__ import annotations

import errno
import hashlib
import platform
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import exists, read_bytes
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.urls import basename, dirname, join
from trackmill.pipeline.training.checkpoint_document import (
    DOCUMENT,
    EMA,
    MODEL,
    OPTIMIZER,
    CheckpointDocument,
    DamagedCheckpoint,
    FileRecord,
    read_checkpoint_document,
    step_of,
)
from trackmill.pipeline.training.engines.base import EngineState


@dataclass(frozen=True, kw_only=True)
class SavedCheckpoint:
    """A checkpoint that is whole.

    Args:
        url: its folder.
        step: steps done.
        document: what `checkpoint.json` says.
        damaged: newer ones that are not whole, each with the reason.
    """

    url: str
    step: int
    document: CheckpointDocument
    damaged: tuple[str, ...] = ()


def folder_of(output: str, step: int) -> str:
    """Where the checkpoint of a step lies."""
    return join(output, "checkpoints", f"step-{step:08d}")


def list_folders(output: str) -> dict[str, set[str]]:
    """Names of the files in each step's folder, by the folder's URL."""
    try:
        listing = list_files(join(output, "checkpoints"))
    except FileNotFoundError:
        return {}
    folders: dict[str, set[str]] = {}
    for file in listing:
        if step_of(dirname(file.uri)) >= 0:
            folders.setdefault(dirname(file.uri), set()).add(basename(file.uri))
    return folders


def surroundings() -> dict[str, Any]:
    """What may change the last bits of a result: sums are added up in another order."""
    return {"python": platform.python_version(), "torch": torch.__version__, "threads": torch.get_num_threads()}


def other_surroundings(saved: SavedCheckpoint, world: int) -> str:
    """How a checkpoint was made otherwise than this process would, for people; empty where nothing differs."""
    then = {**saved.document.versions, "ranks": saved.document.world}
    now = {**surroundings(), "ranks": world}
    differing = [f"{key} {then[key]}, now {value}" for key, value in now.items() if then.get(key, value) != value]
    return ", ".join(differing)


def stored_streams(saved: SavedCheckpoint | None, micro_batch: int) -> int:
    """The number of streams with which a run began, which it keeps where the recipe names none; 0: to be chosen.

    Args:
        saved: where it goes on; None to begin.
        micro_batch: samples of a micro batch, which another number of streams may divide no more.
    """
    streams = saved.document.loader.streams if saved is not None else 0
    return streams if streams and micro_batch % streams == 0 else 0


def find(output: str, thorough: bool = True) -> SavedCheckpoint | None:
    """The newest whole checkpoint of a run, None where there is none yet.

    A damaged one is passed over for the one before, never used and never removed here.

    Args:
        output: root of the run.
        thorough: read every file and compare its SHA-256; otherwise only lengths.

    Raises:
        NewerCheckpoint: a newer version has gone on with the run.
        DamagedCheckpoint: none is whole.
    """
    damaged: list[str] = []
    folders = list_folders(output)
    for folder in sorted(folders, key=step_of, reverse=True):
        if DOCUMENT not in folders[folder]:
            continue  # killed while it was written
        try:
            document = _check(folder, thorough)
        except (DamagedCheckpoint, FileNotFoundError) as error:
            damaged.append(str(error))
            continue
        except OSError as error:
            if not _is_bad_sector(error):
                raise
            damaged.append(f"{redact(folder)} cannot be read: {error}")
            continue
        return SavedCheckpoint(url=folder, step=document.step, document=document, damaged=tuple(damaged))
    if damaged:
        raise DamagedCheckpoint(
            f"no checkpoint of {redact(output)} is whole ({'; '.join(damaged)}); restore one, or start anew in "
            "another --output"
        )
    return None


def open_checkpoint(url: str, thorough: bool = True) -> SavedCheckpoint:
    """A checkpoint by the URL of its folder, or the newest one of a run by the URL of its root.

    Raises:
        DamagedCheckpoint: it is not whole.
        FileNotFoundError: there is none.
    """
    if exists(join(url, DOCUMENT)):
        document = _check(url, thorough)
        return SavedCheckpoint(url=url, step=document.step, document=document)
    newest = find(url, thorough)
    if newest is None:
        raise FileNotFoundError(
            f"no checkpoint at {redact(url)}: give a folder with {DOCUMENT} in it (OUTPUT/checkpoints/step-...), or "
            "the root of a run"
        )
    return newest


def read_state(saved: SavedCheckpoint) -> tuple[EngineState, dict[str, Tensor] | None]:
    """The engine's state and the averaged weights, if any, on the CPU.

    Every rank reads for itself: one reader for all would hold the others up for as long, and pass it through memory
    once more. The checkpoint was chosen by rank 0 for all, so that they read the same one.

    Raises:
        DamagedCheckpoint: a file has changed since it was found.
    """
    files = saved.document.files
    averaged = _tensors(saved.url, EMA, files[EMA]) if EMA in files else None
    state = EngineState(
        parameters=_tensors(saved.url, MODEL, files[MODEL]),
        moments=_tensors(saved.url, OPTIMIZER, files[OPTIMIZER]),
        numbers=saved.document.engine.plain(),
    )
    return state, averaged


def _is_bad_sector(error: OSError) -> bool:
    """Whether the disk itself cannot read: trying later, as with a network, gives no other answer."""
    return errno.EIO in (error.errno, getattr(error.__cause__, "errno", None))


def _check(folder: str, thorough: bool) -> CheckpointDocument:
    """The document of a folder whose files are as it says."""
    shown = redact(folder)
    document = read_checkpoint_document(folder)
    sizes = {basename(file.uri): file.size for file in list_files(folder, sizes=True)}
    for name, record in document.files.items():
        if sizes.get(name) != record.bytes:
            raise DamagedCheckpoint(f"{shown}/{name} has {sizes.get(name, 'no')} of {record.bytes} bytes")
        if thorough:
            _read(folder, name, record)
    return document


def _read(folder: str, name: str, record: FileRecord) -> bytes:
    data = read_bytes(join(folder, name))
    if len(data) != record.bytes or hashlib.sha256(data).hexdigest() != record.sha256:
        raise DamagedCheckpoint(f"{redact(folder)}/{name} is damaged: its SHA-256 is not the recorded one")
    return data


def _tensors(folder: str, name: str, record: FileRecord) -> dict[str, Tensor]:
    try:
        return load(_read(folder, name, record))
    except SafetensorError as error:
        raise DamagedCheckpoint(f"{redact(folder)}/{name} is no safetensors file: {error}") from None
