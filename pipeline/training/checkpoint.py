"""Checkpoints: who saves, who waits, who reports, what stays and what goes. `saved_checkpoint` finds and reads them.

`OUTPUT/checkpoints/step-00000040/` holds `model.safetensors`, `optimizer.safetensors`, `ema.safetensors` where weights
are averaged, and `checkpoint.json`. What they say is free of ranks, ZeRO stages and devices, so that any engine on any
number of ranks goes on from them; nothing in them is pickled.

No random state is stored: all randomness of a step follows from the seed and the number of the step.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from trackmill.pipeline.console.words import readable_bytes
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.publish import publish_bytes, remove
from trackmill.pipeline.storage.scratch import sweep_scratch
from trackmill.pipeline.storage.urls import filesystem, is_local, join
from trackmill.pipeline.training.checkpoint_document import (
    DOCUMENT,
    EMA,
    MODEL,
    OPTIMIZER,
    CheckpointDocument,
    DamagedCheckpoint,
    NewerCheckpoint,
    is_newer,
    read_checkpoint_document,
    step_of,
)
from trackmill.pipeline.training.engines.base import Engine, EngineState
from trackmill.pipeline.training.ranks import on_first_rank
from trackmill.pipeline.training.saved_checkpoint import folder_of, list_folders, surroundings
from trackmill.pipeline.training.weight_files import check_finite, write_tensors
from trackmill.schemas.config import Settings
from trackmill.schemas.errors import StorageError


class CheckpointSettings(Settings):
    """Section `checkpoint`."""

    every: int = Field(500, gt=0, description="Steps between two checkpoints; what a kill loses at most.")
    grace_s: float = Field(
        25.0,
        ge=0,
        description="Seconds between a signal to stop and the kill. The step in hand is finished, and saved if a save "
        "like the last one ends within them; 0: always saved.",
    )
    keep: int = Field(2, gt=0, description="The newest so many stay. With 1 there is none to fall back to if it rots.")


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
            folder = _write(output, step, state, averaged, document)
        except OSError as error:
            with contextlib.suppress(OSError):
                remove(folder_of(output, step))  # of a full disk it takes room that others need
            raise StorageError(_not_saved(output, step, state, averaged, error)) from error
        _remove_old(output, step, keep)
        return folder

    # Others wait here: none may take a step that a failed save would have to undo.
    return on_first_rank(write)


def bytes_of(folder: str) -> int:
    """Bytes of a checkpoint that was just written; 0 where its document cannot be read."""
    try:
        return sum(record.bytes for record in read_checkpoint_document(folder).files.values())
    except (OSError, DamagedCheckpoint, NewerCheckpoint):
        return 0


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
    code: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What `checkpoint.json` says beside its files and the engine's numbers."""
    return {
        **({"history": list(history)} if history else {}),
        **({"code": dict(code)} if code else {}),
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
    half = [folder for folder, files in list_folders(output).items() if files <= {MODEL, OPTIMIZER, EMA}]
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
) -> str:
    folder = folder_of(output, step)
    check_finite({**state.parameters, **state.moments, **(averaged or {})}, f"the checkpoint of step {step}")
    # A damaged checkpoint of the same step may be there, and its document must not stand beside the new files.
    if is_newer(folder):
        raise NewerCheckpoint(
            f"{redact(folder)} was written by a newer version of Trackmill, and is left alone: give another --output"
        )
    remove(folder)
    files = {MODEL: state.parameters, OPTIMIZER: state.moments}
    if averaged is not None:
        files[EMA] = dict(averaged)
    records = {name: write_tensors(join(folder, name), tensors) for name, tensors in files.items()}
    # Last: a folder without it does not count.
    whole = CheckpointDocument.model_validate({**document, "engine": state.numbers, "files": records})
    publish_bytes(join(folder, DOCUMENT), whole.to_bytes())
    return folder


def _remove_old(output: str, step: int, keep: int) -> None:
    # Only when the new one is whole. Later steps, of a run that was set back to an earlier step, stay as well.
    before = [old for old, files in list_folders(output).items() if DOCUMENT in files and step_of(old) < step]
    for old in sorted(before, key=step_of, reverse=True)[keep - 1 :]:
        if is_newer(old):
            continue
        remove(join(old, DOCUMENT))  # first, so that a kill in between leaves no folder that seems whole
        remove(old)


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
        whole = [step_of(old) for old, files in list_folders(output).items() if DOCUMENT in files and old != folder]
        if whole:
            kept = f"the checkpoint of step {max(whole)} is kept"
    return (
        f"the checkpoint of step {step} could not be written to {redact(folder)} ({error.strerror or error}); {room}. "
        f"What was half written is removed; {kept}"
    )
