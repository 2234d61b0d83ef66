"""`checkpoint.json`: a strict model of what a checkpoint is, with a checksum of itself and of each of its files."""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.documents import DamagedDocument, document_bytes, read_document
from trackmill.pipeline.storage.urls import join
from trackmill.schemas.errors import InputError

FORMAT: Final = 2
"""The newest that is read. One without `code` is written as 1, so that older versions go on with it."""
DOCUMENT = "checkpoint.json"
MODEL: Final = "model.safetensors"
OPTIMIZER: Final = "optimizer.safetensors"
EMA: Final = "ema.safetensors"
_FOLDER = re.compile(r"step-(\d{8,})$")
_SHA256 = r"^[0-9a-f]{64}$"


class DamagedCheckpoint(InputError):
    """A file of a checkpoint is missing, short or changed; says which."""


class NewerCheckpoint(InputError):
    """A checkpoint that a newer version of Trackmill has written: this one neither reads it nor touches it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class FileRecord(_Strict):
    """A file of a checkpoint: its length, and the SHA-256 over all of it."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=_SHA256)


class PastChange(_Strict):
    """A setting that somebody allowed to change when the run went on at a step."""

    step: int = Field(ge=0)
    key: str
    before: Any
    now: Any


class LoaderPosition(_Strict):
    """See `trackmill.pipeline.loader.loader.LoaderState`."""

    seed: int = 0
    batches_done: int = Field(ge=0)
    epoch: int = Field(0, ge=0)
    batch_size: int = Field(0, ge=0)
    streams: int = Field(0, ge=0, description="0: not known.")
    window: int = Field(0, ge=0)


class EngineNumbers(_Strict):
    """Numbers of the engine, see `trackmill.pipeline.training.engines.base.EngineState`."""

    steps: int = Field(ge=0)
    loss_scale: float | None = None
    good_steps: int | None = None

    def plain(self) -> dict[str, Any]:
        """Those that there are."""
        return self.model_dump(exclude_none=True)


class CheckpointDocument(_Strict):
    """All of `checkpoint.json` but its checksum.

    Args:
        step, seed, world, loader: where the run is, and on how many ranks.
        recipe, digest: what decides the result, by dotted key, and the digest over it.
        data, frozen: what identifies the data set and the frozen weights.
        versions: of what may change the last bits of a result.
        history: see `trackmill.pipeline.training.changes.history_of`.
        code: see `trackmill.pipeline.tasks.outside_code`.
        engine, files: what `trackmill.pipeline.training.checkpoint.save` adds.
    """

    format: Literal[1, 2] = 1
    step: int = Field(ge=0)
    seed: int
    world: int = Field(gt=0)
    loader: LoaderPosition
    recipe: dict[str, Any]
    digest: str = Field(pattern=_SHA256)
    data: dict[str, Any]
    frozen: str = Field(pattern=rf"{_SHA256}|^$")
    versions: dict[str, Any] = Field(default_factory=dict)
    history: list[PastChange] = Field(default_factory=list)
    code: dict[str, str] = Field(default_factory=dict)
    engine: EngineNumbers
    files: dict[Literal["model.safetensors", "optimizer.safetensors", "ema.safetensors"], FileRecord]

    @model_validator(mode="after")
    def _complete(self) -> CheckpointDocument:
        if missing := {MODEL, OPTIMIZER} - self.files.keys():
            raise ValueError(f"has no {min(missing)}")
        return self

    def to_bytes(self) -> bytes:
        """The file, with its checksum."""
        younger = {name for name in ("history", "code") if not getattr(self, name)}  # older versions read it without
        values = self.model_dump(mode="json", exclude=younger)
        return document_bytes({**values, "format": 2 if self.code else 1, "engine": self.engine.plain()})


def step_of(folder: str) -> int:
    """The step that the name of a checkpoint's folder says; -1 where it says none."""
    named = _FOLDER.search(folder)
    return int(named[1]) if named else -1


def read_checkpoint_document(folder: str) -> CheckpointDocument:
    """The document of a checkpoint, whole.

    Raises:
        DamagedCheckpoint: one bit of it is not as it was written, or it belongs to another step's folder.
        NewerCheckpoint: a newer version wrote it.
        FileNotFoundError: there is none.
        OSError: could not be read.
    """
    shown = redact(folder)
    try:
        values = read_document(join(folder, DOCUMENT))
    except DamagedDocument as error:
        raise DamagedCheckpoint(str(error)) from None
    # Only after the checksum was verified (or of an older document that has none): a flipped bit is no newer version.
    version = values.get("format")
    if type(version) is int and version > FORMAT:
        raise NewerCheckpoint(
            f"{shown} was written by a newer version of Trackmill (format {version}, this one reads {FORMAT}), and "
            "is left alone: go on with that version, or give another --output (and an older checkpoint as --resume)"
        )
    try:
        document = CheckpointDocument.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DamagedCheckpoint(
            f"{shown}/{DOCUMENT} is damaged: {f'{where}: ' if where else ''}{first['msg']}"
        ) from None
    if step_of(folder) not in (-1, document.step):
        raise DamagedCheckpoint(f"{shown}/{DOCUMENT} is damaged, or of another folder: it says step {document.step}")
    return document


def is_newer(folder: str) -> bool:
    """Whether a newer version has written a checkpoint; one that cannot be read is only damaged."""
    try:
        read_checkpoint_document(folder)
    except NewerCheckpoint:
        return True
    except (DamagedCheckpoint, OSError):
        return False
    return False
