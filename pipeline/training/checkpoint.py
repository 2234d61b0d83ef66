"""Checkpoints: who saves, who waits, who reports, and how one is found, checked and loaded. All rules are here.

`OUTPUT/checkpoints/step-00000040/` holds `model.safetensors`, `optimizer.safetensors`, `ema.safetensors` where weights
are averaged, and `checkpoint.json`. What they say is free of ranks, ZeRO stages and devices, so that any engine on any
number of ranks goes on from them; nothing in them is pickled.

No random state is stored: all randomness of a step follows from the seed and the number of the step.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from trackmill.pipeline.console.words import readable_bytes
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import (
    basename,
    dirname,
    exists,
    filesystem,
    is_local,
    join,
    list_files,
    read_bytes,
)
from trackmill.pipeline.storage.publish import publish_bytes, remove
from trackmill.pipeline.storage.scratch import sweep_scratch
from trackmill.pipeline.training.engines.base import Engine, EngineState
from trackmill.pipeline.training.ranks import on_first_rank
from trackmill.pipeline.training.weight_files import check_finite, write_tensors
from trackmill.schemas.config import Settings
from trackmill.schemas.errors import InputError, StorageError

FORMAT = 1
DOCUMENT = "checkpoint.json"
MODEL, OPTIMIZER, EMA = "model.safetensors", "optimizer.safetensors", "ema.safetensors"
_FOLDER = re.compile(r"step-(\d{8,})$")


class CheckpointSettings(Settings):
    """Section `checkpoint`."""

    every: int = Field(500, gt=0, description="Steps between two checkpoints; what a kill loses at most.")
    keep: int = Field(2, gt=0, description="The newest so many stay. With 1 there is none to fall back to if it rots.")


class DamagedCheckpoint(InputError):
    """A file of a checkpoint is missing, short or changed; says which."""


class NewerCheckpoint(InputError):
    """A checkpoint that a newer version of Trackmill has written: this one neither reads it nor touches it."""


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
    document: dict[str, Any]
    damaged: tuple[str, ...] = ()


def folder_of(output: str, step: int) -> str:
    """Where the checkpoint of a step lies."""
    return join(output, "checkpoints", f"step-{step:08d}")


def save(
    output: str,
    step: int,
    engine: Engine,
    averaged: Mapping[str, Tensor] | None,
    document: Mapping[str, Any],
    keep: int,
) -> str:
    """Write the checkpoint of a step; every rank must call it. Returns the URL of its folder.

    Args:
        output: root of the run.
        step: steps done.
        engine: every rank takes part in collecting its state; rank 0 gets it and writes.
        averaged: weights of the moving average, on rank 0; None on others, or where nothing is averaged.
        document: what `describe_checkpoint` gave.
        keep: so many stay.

    Raises:
        NonFinite: it would hold weights that are no numbers.
        StorageError: it could not be written, and nothing half written stays; says what is kept and how much room it
            takes. `OtherRankFailed` on the other ranks.
    """
    state = engine.state()

    def write() -> str:
        assert state is not None, "the engine gives its state to rank 0"
        try:
            return _write(output, step, state, averaged, document, keep)
        except OSError as error:
            with contextlib.suppress(OSError):
                remove(folder_of(output, step))  # of a full disk it takes room that others need
            raise StorageError(_not_saved(output, step, state, averaged, error)) from error

    # Others wait here: none may take a step that a failed save would have to undo.
    return on_first_rank(write)


def describe_checkpoint(
    *,
    step: int,
    seed: int,
    world: int,
    loader: Mapping[str, Any],
    recipe: Mapping[str, Any],
    digest: str,
    data: Mapping[str, Any],
    frozen: str,
    history: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """What `checkpoint.json` says beside its files and the engine's numbers."""
    return {
        **({"history": list(history)} if history else {}),
        "format": FORMAT,
        "step": step,
        "seed": seed,
        "world": world,
        "loader": dict(loader),
        "recipe": dict(recipe),
        "digest": digest,
        "data": dict(data),
        "frozen": frozen,
        "versions": surroundings(),
    }


def stored_streams(saved: SavedCheckpoint | None, micro_batch: int) -> int:
    """The number of streams with which a run began, which it keeps where the recipe names none; 0: to be chosen.

    Args:
        saved: where it goes on; None to begin.
        micro_batch: samples of a micro batch, which another number of streams may divide no more.
    """
    streams = int(saved.document["loader"].get("streams", 0)) if saved is not None else 0
    return streams if streams and micro_batch % streams == 0 else 0


def surroundings() -> dict[str, Any]:
    """What may change the last bits of a result: sums are added up in another order."""
    return {"python": platform.python_version(), "torch": torch.__version__, "threads": torch.get_num_threads()}


def other_surroundings(saved: SavedCheckpoint, world: int) -> str:
    """How a checkpoint was made otherwise than this process would, for people; empty where nothing differs."""
    then = {**saved.document.get("versions", {}), "ranks": saved.document.get("world")}
    now = {**surroundings(), "ranks": world}
    differing = [f"{key} {then[key]}, now {value}" for key, value in now.items() if then.get(key, value) != value]
    return ", ".join(differing)


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
    folders = _folders(output)
    for folder in sorted(folders, key=_step_of, reverse=True):
        if DOCUMENT not in folders[folder]:
            continue  # killed while it was written
        try:
            document = _check(folder, thorough)
        except (DamagedCheckpoint, FileNotFoundError) as error:
            damaged.append(str(error))
            continue
        return SavedCheckpoint(url=folder, step=document["step"], document=document, damaged=tuple(damaged))
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
        return SavedCheckpoint(url=url, step=document["step"], document=document)
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
    files = saved.document["files"]
    averaged = _tensors(saved.url, EMA, files[EMA]) if EMA in files else None
    state = EngineState(
        parameters=_tensors(saved.url, MODEL, files[MODEL]),
        moments=_tensors(saved.url, OPTIMIZER, files[OPTIMIZER]),
        numbers=saved.document["engine"],
    )
    return state, averaged


def frozen_digest(module: torch.nn.Module) -> str:
    """SHA-256 over the frozen parameters by name, before an engine takes the module; empty where nothing is frozen."""
    frozen = {name: values for name, values in module.named_parameters() if not values.requires_grad}
    if not frozen:
        return ""
    sums = hashlib.sha256()
    for name, values in sorted(frozen.items()):
        sums.update(name.encode())
        sums.update(values.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return sums.hexdigest()


def sweep(output: str) -> list[str]:
    """Remove what a kill left half written; returns the folders. Only rank 0, before anything is saved.

    Scratch files of processes that still live, or ran on other machines, stay.
    """
    for folder in (output, join(output, "final"), join(output, "hangs")):
        sweep_scratch(folder)
    # Files of other names are somebody else's, a newer version's perhaps.
    half = [folder for folder, files in _folders(output).items() if files <= {MODEL, OPTIMIZER, EMA}]
    for folder in half:
        remove(folder)
    if is_local(output):
        # Listings leave out hidden files, so they do not show a folder in which only a scratch file is left.
        for path in Path(filesystem(output)[1], "checkpoints").glob("step-*"):
            if path.is_dir() and sweep_scratch(str(path)):
                with contextlib.suppress(OSError):
                    path.rmdir()
                    half.append(str(path))
    return half


def _write(
    output: str,
    step: int,
    state: EngineState,
    averaged: Mapping[str, Tensor] | None,
    document: Mapping[str, Any],
    keep: int,
) -> str:
    folder = folder_of(output, step)
    check_finite({**state.parameters, **state.moments, **(averaged or {})}, f"the checkpoint of step {step}")
    # A damaged one of the same step may be there, whose document must not vouch for the new files.
    if _is_newer(folder):
        raise NewerCheckpoint(
            f"{redact(folder)} was written by a newer version of Trackmill, and is left alone: give another --output"
        )
    remove(folder)
    files = {MODEL: state.parameters, OPTIMIZER: state.moments}
    if averaged is not None:
        files[EMA] = dict(averaged)
    records = {name: write_tensors(join(folder, name), tensors) for name, tensors in files.items()}
    # Last: a folder without it does not count.
    publish_bytes(
        join(folder, DOCUMENT),
        orjson.dumps(
            {**document, "engine": state.numbers, "files": records}, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS
        ),
    )
    # Only now, when the new one is whole. Later steps, of a run that was set back to an earlier step, stay as well.
    before = [old for old, files in _folders(output).items() if DOCUMENT in files and _step_of(old) < step]
    for old in sorted(before, key=_step_of, reverse=True)[keep - 1 :]:
        if _is_newer(old):
            continue
        remove(join(old, DOCUMENT))  # first, so that a kill in between leaves no folder that seems whole
        remove(old)
    return folder


def _not_saved(
    output: str, step: int, state: EngineState, averaged: Mapping[str, Tensor] | None, error: OSError
) -> str:
    """What people need to know when a checkpoint could not be written."""
    folder = folder_of(output, step)
    tensors = [*state.parameters.values(), *state.moments.values(), *(averaged or {}).values()]
    room = f"it takes {readable_bytes(sum(each.nbytes for each in tensors))}"
    if is_local(output):
        with contextlib.suppress(OSError):
            room += f", and {readable_bytes(shutil.disk_usage(filesystem(output)[1]).free)} are free there"
    kept = "no earlier checkpoint is there"
    with contextlib.suppress(OSError):
        whole = [_step_of(old) for old, files in _folders(output).items() if DOCUMENT in files and old != folder]
        if whole:
            kept = f"the checkpoint of step {max(whole)} is kept"
    return (
        f"the checkpoint of step {step} could not be written to {redact(folder)} ({error.strerror or error}); {room}. "
        f"What was half written is removed; {kept}"
    )


def _folders(output: str) -> dict[str, set[str]]:
    """Names of the files in each step's folder, by the folder's URL."""
    try:
        listing = list_files(join(output, "checkpoints"))
    except FileNotFoundError:
        return {}
    folders: dict[str, set[str]] = {}
    for file in listing:
        if _FOLDER.search(dirname(file.uri)):
            folders.setdefault(dirname(file.uri), set()).add(basename(file.uri))
    return folders


def _is_newer(folder: str) -> bool:
    """Whether a newer version has written a checkpoint; one that cannot be read is only damaged."""
    try:
        version = orjson.loads(read_bytes(join(folder, DOCUMENT)))["format"]
    except (FileNotFoundError, orjson.JSONDecodeError, KeyError, TypeError):
        return False
    return isinstance(version, int) and version > FORMAT


def _step_of(folder: str) -> int:
    return int(folder.rsplit("-", 1)[1])


def _check(folder: str, thorough: bool) -> dict[str, Any]:
    """The document of a folder whose files are as it says."""
    shown = redact(folder)
    try:
        document: dict[str, Any] = orjson.loads(read_bytes(join(folder, DOCUMENT)))
        version = document["format"]
        if isinstance(version, int) and version > FORMAT:
            raise NewerCheckpoint(
                f"{shown} was written by a newer version of Trackmill (format {version}, this one reads {FORMAT}), and "
                "is left alone: go on with that version, or give another --output (and an older checkpoint as --resume)"
            )
        files, step = document["files"], int(document["step"])
    except NewerCheckpoint:
        raise
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise DamagedCheckpoint(f"{shown}/{DOCUMENT} cannot be read: {type(error).__name__}: {error}") from None
    if version != FORMAT:
        raise DamagedCheckpoint(f"{shown} has format {version}; this version of Trackmill reads {FORMAT}")
    document["step"] = step
    sizes = {basename(file.uri): file.size for file in list_files(folder, sizes=True)}
    for name, record in files.items():
        if sizes.get(name) != record["bytes"]:
            raise DamagedCheckpoint(f"{shown}/{name} has {sizes.get(name, 'no')} of {record['bytes']} bytes")
        if thorough:
            _read(folder, name, record)
    return document


def _read(folder: str, name: str, record: Mapping[str, Any]) -> bytes:
    data = read_bytes(join(folder, name))
    if len(data) != record["bytes"] or hashlib.sha256(data).hexdigest() != record["sha256"]:
        raise DamagedCheckpoint(f"{redact(folder)}/{name} is damaged: its SHA-256 is not the one that was written down")
    return data


def _tensors(folder: str, name: str, record: Mapping[str, Any]) -> dict[str, Tensor]:
    try:
        return load(_read(folder, name, record))
    except SafetensorError as error:
        raise DamagedCheckpoint(f"{redact(folder)}/{name} is no safetensors file: {error}") from None
